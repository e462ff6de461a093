//! Sounds: WAV files of one channel and 16 bits.

use crate::array::Array;

/// Returns a WAV file of samples from -1 to 1. What is beyond is clipped, and NaN is silence.
///
/// The format is that of the RIFF specification of 1991: a chunk `fmt ` of 16 bytes and one of data.
pub(crate) fn wav(samples: &Array, rate: u32) -> Vec<u8> {
    let bytes = 2 * samples.len() as u32;
    let mut file = Vec::with_capacity(44 + bytes as usize);
    file.extend(b"RIFF");
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    // PCM, one channel.
    file.extend([1, 0, 1, 0]);
    file.extend(rate.to_le_bytes());
    file.extend(rate.wrapping_mul(2).to_le_bytes());
    // Bytes of a sample, and bits.
    file.extend([2, 0, 16, 0]);
    file.extend(b"data");
    file.extend(bytes.to_le_bytes());
    let is_single = !matches!(samples.kind(), crate::array::Kind::F64);
    samples.for_each(|sample| {
        let clipped = sample.clamp(-1.0, 1.0);
        // In the precision of the samples, as PyTorch's writer.
        let scaled = if is_single { f64::from(clipped as f32 * 32767.0) } else { clipped * 32767.0 };
        file.extend((scaled as i16).to_le_bytes());
    });
    file
}
