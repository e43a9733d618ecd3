//! The server: one thread, which ends when it is dropped.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use anyhow::anyhow;
use tiny_http::{Header, Method, Request, Response, Server};

use super::{
    super::{
        outlet::{Outlet, Report},
        watched::Reading,
    },
    families,
};

/// What `OpenMetrics` 1.0 calls itself.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the newest reading.
pub struct Metrics {
    newest: Arc<Mutex<Reading>>,
    server: Arc<Server>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Metrics {
    /// Listens on `address`.
    pub fn serve(address: SocketAddr) -> anyhow::Result<Self> {
        let server = Server::http(address).map_err(|error| {
            anyhow!("can't serve metrics on {address} ({error}): give another address with --metrics, such as 127.0.0.1:9435")
        })?;
        let address = server.server_addr().to_ip().unwrap_or(address);
        let newest = Arc::new(Mutex::new(Reading::default()));
        let server = Arc::new(server);
        let thread = std::thread::Builder::new().name("metrics".to_owned()).spawn({
            let (server, newest) = (Arc::clone(&server), Arc::clone(&newest));
            // It returns an error once `unblock` was called.
            move || {
                while let Ok(request) = server.recv() {
                    answer(request, &newest);
                }
            }
        })?;
        Ok(Self {
            newest,
            server,
            address,
            thread: Some(thread),
        })
    }

    /// Where it listens; the port is real where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Outlet for Metrics {
    fn report(&mut self, report: &Report) -> anyhow::Result<()> {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = report.reading.clone();
        Ok(())
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened.
            let _ = thread.join();
        }
    }
}

fn answer(request: Request, newest: &Mutex<Reading>) {
    let plain = |text: &str, status: u16| Response::from_string(text).with_status_code(status);
    let response = if !matches!(request.method(), Method::Get | Method::Head) {
        plain("only GET is served\n", 405)
    } else if request.url().split('?').next() != Some("/metrics") {
        plain("metrics are at /metrics\n", 404)
    } else {
        let reading = newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match families::text(&reading) {
            Ok(text) => {
                let header = Header::from_bytes("Content-Type", CONTENT_TYPE).expect("a plain ASCII header");
                Response::from_string(text).with_header(header)
            }
            Err(_) => plain("the metrics could not be put into text\n", 500),
        }
    };
    // A client that has gone needs no answer.
    let _ = request.respond(response);
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
        thread,
        time::Duration,
    };

    use super::{
        super::super::rates::tests::{reading, thread},
        *,
    };

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }

    #[test]
    fn it_serves_and_ends() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let mut metrics = Metrics::serve(any).expect("a free port");
        let address = metrics.address();
        let report = Report {
            t_s: 1.0,
            reading: reading(1, vec![thread(7, 5120)]),
            rates: Vec::new(),
        };
        metrics.report(&report).expect("it takes it");
        let answer = get(address, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains(&format!("Content-Type: {CONTENT_TYPE}\r\n")),
            "{answer}"
        );
        assert!(
            answer.contains("thread=\"7\"} 5120") && answer.ends_with("# EOF\n"),
            "{answer}"
        );
        assert!(get(address, "/").starts_with("HTTP/1.1 404"));

        let error = Metrics::serve(address).err().expect("in use").to_string();
        assert!(
            error.contains(&address.to_string()) && error.contains("--metrics"),
            "{error}"
        );
        drop(metrics);
        // The server closes its port on a thread of its own.
        let free = (0..500).any(|_| {
            thread::sleep(Duration::from_millis(10));
            TcpStream::connect(address).is_err()
        });
        assert!(free, "the port is free again");
    }
}
