//! What is asked of a stream: which one it is, what it allows, and what its last message is.

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, RawMessage};
use serde::Deserialize;
use serde_json::json;

use crate::connection::Link;
use crate::error::Failure;
use crate::stream::{NatsStream, Stream};

#[derive(Deserialize)]
struct Names {
    /// (`null` where there are none.)
    streams: Option<Vec<String>>,
}

impl Link {
    /// Returns the name of the stream that takes a subject.
    pub(crate) async fn stream_of(&self, subject: &str) -> Result<Option<String>, Failure> {
        let names: Names = self.ask("STREAM.NAMES".to_owned(), &json!({ "subject": subject })).await?;
        Ok(names.streams.unwrap_or_default().into_iter().next())
    }

    pub(crate) async fn info(&self, stream: &str) -> Result<Info, Failure> {
        self.ask(format!("STREAM.INFO.{stream}"), &()).await
    }

    /// Finds the stream that takes a subject, and makes it where there is none.
    pub(crate) async fn ensure(&mut self, subject: &str, settings: &NatsStream) -> Result<Stream, Failure> {
        if let Some(stream) = &self.stream {
            return Ok(stream.clone());
        }
        let config = match self.stream_of(subject).await? {
            Some(name) => self.info(&name).await?.config,
            None => {
                let wanted = settings.config(subject, self.is_server_compatible(2, 14));
                let name = wanted.name.clone();
                if name.is_empty() || name.contains([' ', '.', '*', '>', '/', '\\']) {
                    let must = "without spaces, and without any of . * > / \\";
                    return Err(Failure::never(format!("the name of a stream must be {must}, got {name:?}")));
                }
                let made: Result<Info, Failure> = self.ask(format!("STREAM.CREATE.{name}"), &wanted).await;
                match made {
                    Ok(info) => info.config,
                    // Another producer may have made it meanwhile.
                    Err(failure) => match self.stream_of(subject).await? {
                        Some(name) => self.info(&name).await?.config,
                        None => return Err(failure),
                    },
                }
            }
        };
        if let Some(wanted) = settings.name.as_ref().filter(|name| **name != config.name) {
            let is =
                format!("subject {subject:?} belongs to stream {:?}, and not to {wanted:?}", config.name);
            return Err(Failure::never(is));
        }
        if config.no_ack {
            return Err(Failure::never(format!("stream {:?} acknowledges nothing", config.name)));
        }
        let of_stream = usize::try_from(config.max_message_size).ok().filter(|bytes| *bytes > 0);
        let stream = Stream {
            name: config.name,
            max_message: of_stream.unwrap_or(usize::MAX).min(self.max_payload()),
            is_atomic: config.allow_atomic_publish,
        };
        self.stream = Some(stream.clone());
        Ok(stream)
    }

    /// Returns the last message of a subject.
    pub(crate) async fn last_of(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<(u64, HeaderMap)>, Failure> {
        #[derive(Deserialize)]
        struct Found {
            message: RawMessage,
        }
        let found: Result<Found, Failure> =
            self.ask(format!("STREAM.MSG.GET.{stream}"), &json!({ "last_by_subj": subject })).await;
        match found {
            Ok(found) => {
                let message = StreamMessage::try_from(found.message).map_err(Failure::broken)?;
                Ok(Some((message.sequence, message.headers)))
            }
            Err(failure) if failure.is_of_no_message() => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}
