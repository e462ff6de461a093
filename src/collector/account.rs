//! `Shared::stats`: the counters of a collector as one value.

use crate::event::Event;
use crate::outcome::Refusal;
use crate::shared::Shared;
use crate::stats::{Rejected, Stats};

impl<E: Event> Shared<E> {
    pub(crate) fn count_refusal(&self, reason: Refusal) {
        let rejected = &self.tally.rejected;
        match reason {
            Refusal::Filtered => self.tally.filtered.add(1),
            Refusal::SampledOut => self.tally.sampled_out.add(1),
            Refusal::RateLimited => self.tally.rate_limited.add(1),
            Refusal::Oversize => self.tally.oversize.add(1),
            Refusal::Full => rejected.full.add(1),
            Refusal::Stopped => rejected.stopped.add(1),
            Refusal::WorkerGone => rejected.worker_gone.add(1),
            Refusal::Forked => rejected.forked.add(1),
        }
    }

    pub(crate) fn pending(&self) -> u64 {
        // `processed` is read first. It never passes `taken`, so the difference cannot fall below zero.
        let processed = self.tally.worker.processed.get();
        let in_hand = self.tally.worker.taken.get().saturating_sub(processed);
        self.lanes.pending() as u64 + in_hand
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.phase.load().state();
        let worker = &self.tally.worker;
        let rejected = Rejected {
            full: self.tally.rejected.full.get(),
            stopped: self.tally.rejected.stopped.get(),
            worker_gone: self.tally.rejected.worker_gone.get(),
            forked: self.tally.rejected.forked.get(),
        };
        let (evicted, processed, pending) = (self.lanes.evicted(), worker.processed.get(), self.pending());
        // Raised here too, because the worker looks only when it comes to take some.
        worker.peak_pending.raise_to(pending);
        let (filtered, sampled_out) = (self.tally.filtered.get(), self.tally.sampled_out.get());
        let (rate_limited, oversize) = (self.tally.rate_limited.get(), self.tally.oversize.get());
        let not_let_in = filtered + sampled_out + rate_limited + oversize;
        let (uptime, rate, latency) = self.tally.meter.read(self.clock.nanos());
        Stats {
            state,
            uptime,
            rate,
            latency,
            offered: not_let_in + rejected.total() + evicted + processed + pending,
            filtered,
            sampled_out,
            rate_limited,
            oversize,
            rejected,
            evicted,
            processed,
            pending,
            pending_bytes: self.lanes.budget().held(),
            peak_pending: worker.peak_pending.get(),
            batches: worker.batches.get(),
            flushes: worker.flushes.get(),
            last_flush: worker.last_flush(),
            parks: worker.parks.get(),
            wakes: self.tally.wakes.get(),
            waits: self.tally.waits.get(),
            enrich_panics: worker.enrich_panics.get(),
            sinks: self.registry.snapshot(),
        }
    }
}
