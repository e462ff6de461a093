//! Damage: no wrong value is handed out, and no more is lost than must be.

use tfevents::{
    Damage, DamageReason, EncodeError, Encoder, OnDamage, ReadError, Reader, Summary, masked_crc32c,
};

use crate::growing::small_file;

/// Returns the data of all records that a reader finds in a finished file, and the damage that it stopped at.
fn read(file: &[u8], on_damage: OnDamage) -> (Vec<Vec<u8>>, Option<Damage>, tfevents::Skipped) {
    let mut reader = Reader::new(file).on_damage(on_damage);
    let mut data = Vec::new();
    let mut stopped = None;
    for is_finished in [false, true] {
        if is_finished {
            reader.finish();
        }
        loop {
            match reader.next_record() {
                Ok(Some(record)) => data.push(record.data().to_vec()),
                Ok(None) => break,
                Err(ReadError::Damaged(damage)) => {
                    assert!(stopped.is_none_or(|stopped| stopped == damage), "another error than before");
                    stopped = Some(damage);
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    (data, stopped, reader.skipped())
}

/// Returns the frame of a record around data.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let checksum = |bytes| masked_crc32c(bytes).to_le_bytes();
    [&length[..], &checksum(&length), data, &checksum(data)].concat()
}

#[test]
fn damage_at_any_byte_loses_its_record_alone() {
    let (file, begins) = small_file();
    let (records, ..) = read(&file, OnDamage::Stop);
    type Change<'a> = &'a dyn Fn(u8) -> Vec<u8>;
    let changed = |at: usize, change: Change<'_>| [&file[..at], &change(file[at]), &file[at + 1..]].concat();
    let changes: [(&str, Change<'_>); 6] = [
        ("lowest bit", &|byte| vec![byte ^ 1]),
        ("highest bit", &|byte| vec![byte ^ 0x80]),
        ("all bits", &|byte| vec![!byte]),
        ("removed", &|_| vec![]),
        ("inserted", &|byte| vec![0x55, byte]),
        ("twice", &|byte| vec![byte, byte]),
    ];
    for at in 0..file.len() {
        let hit = begins.iter().filter(|begin| **begin <= at).count() - 1;
        for (what, change) in changes {
            let damaged = changed(at, change);
            if damaged == file {
                continue;
            }
            let mut left = records.clone();
            let lost = left.remove(hit);
            let (found, stopped, skipped) = read(&damaged, OnDamage::Resync);
            assert_eq!(stopped, None);
            // A byte more between two records does neither harm.
            let is_between = [at, at + 1].iter().any(|at| begins.contains(at) || *at == file.len());
            let is_harmless = is_between && damaged.len() > file.len() && found == records;
            if !is_harmless {
                assert_eq!(found, left, "{what} at {at}, which hit {lost:?}");
            }
            let handed_out: usize = found.iter().map(|data| data.len() + 16).sum();
            assert_eq!(skipped.bytes + handed_out as u64, damaged.len() as u64);
            assert_eq!(skipped.places, 1);

            let (found, stopped, _) = read(&damaged, OnDamage::Stop);
            assert!(found.len() == hit || is_harmless, "{what} at {at}");
            assert_eq!(found, records[..found.len()]);
            let stopped = stopped.unwrap();
            assert!(stopped.offset == begins[hit] as u64 || is_harmless, "{what} at {at}: {stopped}");
            assert_eq!(skipped.first.map(|first| first.offset), Some(stopped.offset));
        }
    }
}

#[test]
fn what_another_program_appended_behind_a_torn_record_is_found() {
    let (file, begins) = small_file();
    let (records, ..) = read(&file, OnDamage::Stop);
    // A picture of a megabyte was torn; its length claims all that follows, and more.
    let big = framed(&vec![0x42; 1 << 20]);
    for torn in [13, 5_000] {
        let damaged = [&file[..begins[3]], &big[..torn], &file[begins[3]..]].concat();
        let (found, _, skipped) = read(&damaged, OnDamage::Resync);
        assert_eq!(found, records);
        assert_eq!((skipped.bytes, skipped.places), (torn as u64, 1));
    }
    // And where the claimed bytes are there. (Where they happen to end with a record, it is taken for a damaged one.)
    let many = file.repeat(4_000);
    let damaged = [&big[..101], &many[..]].concat();
    let (found, _, skipped) = read(&damaged, OnDamage::Resync);
    assert_eq!(found.len(), 4_000 * records.len());
    assert_eq!(skipped.last, Some(Damage { offset: 0, reason: DamageReason::DataChecksum }));
}

#[test]
fn a_damaged_record_between_whole_ones_is_not_searched_for_others() {
    // The data of a record holds a whole file: a text, say, with the bytes of a log.
    let (inner, _) = small_file();
    let mut outer = framed(&inner);
    *outer.last_mut().unwrap() ^= 1;
    let good = framed(b"good");
    let (found, _, skipped) = read(&[&good[..], &outer, &good].concat(), OnDamage::Resync);
    assert_eq!(found, [b"good", b"good"]);
    assert_eq!((skipped.records, skipped.places, skipped.bytes), (1, 1, outer.len() as u64));
}

#[test]
fn a_file_made_of_false_records_takes_no_more_than_a_few_times_its_size() {
    // Every 12 bytes begin a record whose length is right and whose data reaches far and is wrong.
    let length = 100_000_u64.to_le_bytes();
    let head = [&length[..], &masked_crc32c(&length).to_le_bytes()].concat();
    let file = head.repeat(50_000);
    let (found, _, skipped) = read(&file, OnDamage::Resync);
    assert!(found.is_empty());
    assert_eq!(skipped.bytes, file.len() as u64);
    // 8 looks at each byte at most, or so many records would have been tried as there are heads.
    assert!(skipped.records > 2, "{skipped:?}");
}

#[test]
fn a_record_that_is_no_event_is_damage_for_events_alone() {
    let (file, begins) = small_file();
    let no_event = framed(b"\x0a\xff");
    let damaged = [&file[..begins[2]], &no_event, &file[begins[2]..]].concat();
    let (found, stopped, _) = read(&damaged, OnDamage::Stop);
    assert_eq!((found.len(), stopped), (begins.len() + 1, None));
    let mut reader = Reader::new(&damaged[..]);
    assert!((0..2).all(|_| reader.next_event().unwrap().is_some()));
    for _ in 0..2 {
        let error = reader.next_event().unwrap_err();
        let begin = begins[2];
        assert_eq!(
            error.to_string(),
            format!(
                "damaged at byte {begin}: the data is no event: broken at byte 2 of the message: a field must end within the message"
            )
        );
    }
    let mut reader = Reader::new(&damaged[..]).on_damage(OnDamage::Resync);
    let mut events = 0;
    while reader.next_event().unwrap().is_some() {
        events += 1;
    }
    let skipped = reader.skipped();
    assert_eq!((events, skipped.records, skipped.bytes), (begins.len(), 1, no_event.len() as u64));
}

#[test]
fn one_broken_value_discards_its_event() {
    // A scalar, and a tensor whose packed numbers are cut. The encoder refuses it: another writer made it.
    let scalar = b"\x0a\x08\x0a\x01a\x15\0\0\x80\x3f";
    let tensor = b"\x0a\x0c\x0a\x01b\x42\x07\x08\x01\x2a\x03\x00\x00\x00";
    let refused = Encoder::new().add(1.0, 1, "tag", Summary::Encoded(tensor)).unwrap_err();
    let EncodeError::Malformed { at, rule, .. } = refused else { panic!("{refused}") };
    assert_eq!((at, rule), (11, "packed numbers must be whole"));
    let summary = [&scalar[..], tensor].concat();
    let file = framed(&[&[5 << 3 | 2, summary.len() as u8], &summary[..]].concat());
    let mut reader = Reader::new(&file[..]);
    let Err(ReadError::Damaged(Damage { offset: 0, reason: DamageReason::NoEvent(error) })) =
        reader.next_event()
    else {
        panic!("{reader:?}")
    };
    assert_eq!(error.rule, "packed numbers must be whole");
}

#[test]
fn a_record_beyond_the_bound_is_skipped_and_told_under_either_policy() {
    let file = [framed(&[1; 10]), framed(&[2; 101]), framed(&[3; 100])].concat();
    for on_damage in [OnDamage::Stop, OnDamage::Resync] {
        let mut reader = Reader::new(&file[..]).on_damage(on_damage).max_record_bytes(100);
        let mut sizes = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            sizes.push(record.data().len());
        }
        assert_eq!(sizes, [10, 100]);
        let skipped = reader.skipped();
        assert_eq!((skipped.records, skipped.bytes), (1, 117));
        assert_eq!(skipped.last, Some(Damage { offset: 26, reason: DamageReason::TooLarge }));
    }
    // A length of nearly all there is: it is passed over for as long as bytes come.
    let length = u64::MAX.to_le_bytes();
    let endless = [&length[..], &masked_crc32c(&length).to_le_bytes(), &[0; 1000]].concat();
    let mut reader = Reader::new(&endless[..]).max_record_bytes(usize::MAX);
    assert!(reader.next_record().unwrap().is_none());
    assert_eq!(reader.offset(), endless.len() as u64);
}
