//! A server as it is reached over a bad network.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What happens to some bytes of the server.
pub enum Fate {
    Comes,
    /// They are lost, and the connection ends.
    HangsUp,
    /// They are lost, and the connection stays, as where packets are dropped.
    Vanishes,
}

/// Passes on what comes to it. What the server says has the fate that a function chooses. Returns its port, and how often bytes were lost.
pub fn proxy(port: u16, fate: impl Fn(&[u8]) -> Fate + Send + Sync + 'static) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let (lost, fate) = (Arc::new(AtomicU64::new(0)), Arc::new(fate));
    let seen = Arc::clone(&lost);
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            // The test is over, and the server gone.
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (mut requests, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || {
                _ = std::io::copy(&mut requests, &mut to_server);
                _ = to_server.shutdown(Shutdown::Both);
            });
            let (lost, fate) = (Arc::clone(&lost), Arc::clone(&fate));
            thread::spawn(move || {
                let mut buffer = vec![0; 65536];
                while let Ok(bytes @ 1..) = server.read(&mut buffer) {
                    match fate(&buffer[..bytes]) {
                        Fate::Comes if client.write_all(&buffer[..bytes]).is_ok() => {}
                        Fate::Vanishes => _ = lost.fetch_add(1, Ordering::Relaxed),
                        Fate::HangsUp => {
                            lost.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        Fate::Comes => break,
                    }
                }
                _ = client.shutdown(Shutdown::Both);
                _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    (own, seen)
}

/// Returns whether the server says where in the stream a message is.
pub fn is_ack(bytes: &[u8]) -> bool {
    let has = |text: &[u8]| bytes.windows(text.len()).any(|found| found == text);
    has(b"\"stream\":") && has(b"\"seq\":") && !has(b"\"message\":")
}
