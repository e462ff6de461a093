//! `Collector::subscribe_channel`: a subscription as a channel, for `select!`.

use super::next_name;
use crate::collector::{Collector, SinkChangeError};
use crate::event::Event;
use crate::pattern::Pattern;
use crate::sink::{EventReceiver, channel};
use crate::sync::{Arc, Weak};

impl<E: Event + Clone> Collector<E> {
    /// Receives events as they are delivered, whose names the pattern stands for, from a channel that holds `capacity` of them. Unlike
    /// that of [`subscribe`](Self::subscribe), a full channel keeps what it has: new events are counted as
    /// [`rejected`](crate::stats::SinkStats::rejected) under the name of the subscription. A text that is no [`Pattern`] stands for itself.
    ///
    /// What it rejects makes the report of a flush unclean ([`FlushReport::is_clean`](crate::stats::FlushReport::is_clean)). The
    /// report of a stop counts it under the name of the subscription in its [`stats`](crate::stats::StopReport::stats), and not
    /// as [`failed`](crate::stats::StopReport::failed). The channel holds events without their batches, so no
    /// [`gap`](crate::Batch::gap) marks where one is missing.
    ///
    /// The receiver is one of [`crossbeam_channel`], so that one thread can wait for events, and for other channels, by `select!`. See
    /// [`ChannelSink`](crate::sink::ChannelSink).
    ///
    /// ```
    /// use crossbeam_channel::{bounded, select};
    /// use forebay::{Collector, Record};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::builder().start()?;
    /// let losses = collector.subscribe_channel("train.loss", 1000)?;
    /// let (stop, stopped) = bounded::<()>(1);
    /// let watcher = std::thread::spawn(move || {
    ///     let mut seen = 0;
    ///     loop {
    ///         select! {
    ///             recv(losses) -> record => match record {
    ///                 Ok(_) => seen += 1,
    ///                 Err(_) => return seen, // the collector is gone
    ///             },
    ///             recv(stopped) -> _ => return seen,
    ///         }
    ///     }
    /// });
    /// collector.collect(Record::scalar("train.loss", 0.5));
    /// collector.stop()?;
    /// drop(collector);
    /// assert_eq!(watcher.join().unwrap(), 1);
    /// # drop(stop);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The worker is gone, or this is a forked child.
    pub fn subscribe_channel(
        &self,
        pattern: impl Into<Pattern>,
        capacity: usize,
    ) -> Result<EventReceiver<E>, SinkChangeError> {
        let (sink, receiver) = channel(capacity);
        let name = next_name();
        self.add_sink(sink.named(name.clone()).with_pattern(pattern.into()))?;
        let collector = Arc::downgrade(&self.shared);
        Ok(receiver.on_leave(move || {
            _ = Weak::upgrade(&collector).map(|collector| collector.remove_finished(&name))
        }))
    }
}
