//! Headers whose values the client does not know: it logs the bytes that it sends, at the level trace.
//!
//! The client is given stars in their place, as many as the value has bytes. The last part of a connection that sees the head of a request before
//! it is encrypted or sent puts the value there. A head in which one of them is not found is not sent.
//!
//! This needs an interface of ureq that may change with its minor versions: so `Cargo.toml` has an upper bound.

use std::fmt;

use ureq::Error;
use ureq::http::{HeaderMap, HeaderValue};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Line of a header with stars, and the same line with the value. Both have the same length, and begin with the end of the line before.
type Line = (Vec<u8>, Vec<u8>);

/// Connector that puts the values of headers into the heads of requests.
pub(crate) struct SecretHeaders(Vec<Line>);

impl SecretHeaders {
    /// Takes the values out of headers. Returns the headers that the client is given.
    pub(crate) fn of(headers: &HeaderMap) -> (Self, HeaderMap) {
        let (mut lines, mut masked) = (Vec::new(), HeaderMap::new());
        for (name, value) in headers {
            let stars = "*".repeat(value.len());
            let line = |value: &[u8]| [b"\r\n", name.as_str().as_bytes(), b": ", value, b"\r\n"].concat();
            if !value.is_empty() {
                lines.push((line(stars.as_bytes()), line(value.as_bytes())));
            }
            // Stars are always allowed.
            masked.insert(
                name.clone(),
                HeaderValue::from_str(&stars).unwrap_or_else(|_| HeaderValue::from_static("")),
            );
        }
        (Self(lines), masked)
    }
}

impl<In: Transport> Connector<In> for SecretHeaders {
    type Out = Unmasked<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let lines = self.0.clone();
        Ok(chained.map(|inner| Unmasked { inner, left: Vec::new(), lines, state: State::BeforeHead }))
    }
}

impl fmt::Debug for SecretHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretHeaders").finish_non_exhaustive()
    }
}

/// What goes through a connection next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    BeforeHead,
    Head,
    /// The body, until an answer is awaited.
    Body,
    /// Anything: a proxy is asked to connect to another host, and what is meant for that one comes from a connection around this one.
    Tunnel,
}

/// Connection that puts the values of headers into the heads of requests.
pub(crate) struct Unmasked<In> {
    inner: In,
    lines: Vec<Line>,
    /// The lines that the head at hand has not had yet, by their places.
    left: Vec<usize>,
    state: State,
}

impl<In: Transport> Transport for Unmasked<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let output = self.inner.buffers().output();
        let Some(bytes) = output.get_mut(..amount) else {
            return Err(error("the client has sent what it has not"));
        };
        if self.state == State::BeforeHead && !bytes.is_empty() {
            self.state = if bytes.starts_with(b"CONNECT ") { State::Tunnel } else { State::Head };
            self.left = (0..self.lines.len()).collect();
        }
        if self.state == State::Head {
            let lines = &self.lines;
            self.left.retain(|at| !lines.get(*at).is_some_and(|line| replace(bytes, line)));
            if find(bytes, b"\r\n\r\n").is_some() {
                self.state = State::Body;
                if !self.left.is_empty() {
                    return Err(error("a header is too long"));
                }
            }
        }
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if self.state == State::Body {
            self.state = State::BeforeHead;
        }
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

impl<In> fmt::Debug for Unmasked<In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unmasked").field("state", &self.state).finish_non_exhaustive()
    }
}

fn error(what: &'static str) -> Error {
    Error::Other(what.into())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Puts the value where the stars are. Returns whether they were found.
fn replace(bytes: &mut [u8], (masked, unmasked): &Line) -> bool {
    let place = find(bytes, masked).and_then(|at| bytes.get_mut(at..at + unmasked.len()));
    place.is_some_and(|place| {
        place.copy_from_slice(unmasked);
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_length_are_put_where_their_stars_are_and_nowhere_else() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "x"), ("b", "12345"), ("c", "54321"), ("d", ""), ("e", "**")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let (SecretHeaders(lines), masked) = SecretHeaders::of(&headers);
        assert_eq!((lines.len(), masked["b"].to_str().unwrap(), masked["d"].len()), (4, "*****", 0));
        let mut head =
            b"POST / HTTP/1.1\r\nb: *****\r\nzb: *****\r\nc: *****\r\na: *\r\ne: **\r\n\r\nb: *****".to_vec();
        assert!(lines.iter().all(|line| replace(&mut head, line)));
        let expected =
            "POST / HTTP/1.1\r\nb: 12345\r\nzb: *****\r\nc: 54321\r\na: x\r\ne: **\r\n\r\nb: *****";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
        assert!(!replace(&mut b"b: *****\r\n".to_vec(), &lines[0]), "no end of a line before it");
    }
}
