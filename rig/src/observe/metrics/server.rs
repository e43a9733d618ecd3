//! The server: a thread that takes requests, and one for each client that waits for an answer, so that a client that
//! reads slowly or not at all keeps nobody else waiting.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use anyhow::{Context as _, anyhow};
use nix::sys::{
    socket::{setsockopt, sockopt::SendTimeout},
    time::TimeVal,
};
use tiny_http::{Header, Method, Request, Response, Server};

use super::{
    super::{
        outlet::{Outlet, Report},
        watched::Reading,
    },
    families,
    lives::Lives,
    negotiation::Exposition,
};

/// A client that takes nothing for so long has gone. Scrapers give up after 10 s by default.
const PATIENCE_S: i64 = 10;

/// Serves the newest reading.
pub struct Metrics {
    lives: Lives,
    newest: Arc<Mutex<Reading>>,
    server: Arc<Server>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Metrics {
    /// Listens on `address`.
    pub fn serve(address: SocketAddr) -> anyhow::Result<Self> {
        let server = listen(address).map_err(|error| {
            anyhow!("can't serve metrics on {address} ({error:#}): give another address with --metrics, such as 127.0.0.1:9435")
        })?;
        let address = server.server_addr().to_ip().unwrap_or(address);
        let newest = Arc::new(Mutex::new(Reading::default()));
        let server = Arc::new(server);
        let thread = std::thread::Builder::new().name("metrics".to_owned()).spawn({
            let (server, newest) = (Arc::clone(&server), Arc::clone(&newest));
            // It returns an error once `unblock` was called.
            move || {
                let clients = Arc::new(Clients::default());
                while let Ok(request) = server.recv() {
                    clients.take(request, &newest);
                }
            }
        })?;
        Ok(Self {
            lives: Lives::default(),
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

/// The requests of each client that has a thread, as they wait for it. A client that has none waits for nothing.
#[derive(Default)]
struct Clients(Mutex<HashMap<Option<SocketAddr>, VecDeque<Request>>>);

impl Clients {
    /// Has the client's own thread answer `request`, after those before it.
    fn take(self: &Arc<Self>, request: Request, newest: &Arc<Mutex<Reading>>) {
        let address = request.remote_addr().copied();
        match self.lock().entry(address) {
            Entry::Occupied(mut busy) => return busy.get_mut().push_back(request),
            Entry::Vacant(free) => drop(free.insert(VecDeque::new())),
        }
        let (clients, newest) = (Arc::clone(self), Arc::clone(newest));
        let thread = std::thread::Builder::new()
            .name("metrics-client".to_owned())
            .spawn(move || {
                let mut next = Some(request);
                let mut has_gone = false;
                while let Some(request) = next {
                    if has_gone {
                        // Taken from it, so that no answer is tried.
                        drop(request.into_writer());
                    } else {
                        has_gone = answer(request, &newest).is_err();
                    }
                    next = clients.next(address);
                }
            });
        if thread.is_err() {
            // No thread can be had; the client comes again.
            self.lock().remove(&address);
        }
    }

    /// The client's next request; where there is none, its thread ends.
    fn next(&self, address: Option<SocketAddr>) -> Option<Request> {
        let mut clients = self.lock();
        let next = clients.get_mut(&address)?.pop_front();
        if next.is_none() {
            clients.remove(&address);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<SocketAddr>, VecDeque<Request>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<Server> {
    let listener = TcpListener::bind(address)?;
    // The connections inherit it: an answer that nobody reads ends.
    setsockopt(&listener, SendTimeout, &TimeVal::new(PATIENCE_S, 0)).context("no time limit for answers")?;
    Server::from_listener(listener, None).map_err(|error| anyhow!(error))
}

impl Outlet for Metrics {
    fn report(&mut self, report: &Report) -> anyhow::Result<()> {
        let mut reading = report.reading.clone();
        self.lives.prune(&mut reading);
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = reading;
        Ok(())
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported where it happened. Answers that are under way end by themselves.
            let _ = thread.join();
        }
    }
}

/// Answers; an error if the client takes no answer.
fn answer(request: Request, newest: &Mutex<Reading>) -> io::Result<()> {
    let plain = |text: &str, status: u16| Response::from_string(text).with_status_code(status);
    let response = if !matches!(request.method(), Method::Get | Method::Head) {
        plain("only GET is served\n", 405)
    } else if request.url().split('?').next() != Some("/metrics") {
        plain("metrics are at /metrics\n", 404)
    } else {
        let accept: Vec<&str> = request
            .headers()
            .iter()
            .filter(|header| header.field.equiv("Accept"))
            .map(|header| header.value.as_str())
            .collect();
        let exposition = Exposition::accepted(&accept.join(","));
        let reading = newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match families::text(&reading, exposition) {
            Ok(text) => {
                let header =
                    Header::from_bytes("Content-Type", exposition.content_type()).expect("a plain ASCII header");
                Response::from_string(text).with_header(header)
            }
            Err(_) => plain("the metrics could not be put into text\n", 500),
        }
    };
    request.respond(response)
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
        get_as(address, path, "*/*")
    }

    fn get_as(address: SocketAddr, path: &str, accept: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        )
        .expect("it reads");
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
            answer.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{answer}"
        );
        assert!(answer.contains("thread=\"7\"} 5120"), "{answer}");
        let answer = get_as(address, "/metrics", "application/openmetrics-text; version=1.0.0");
        assert!(
            answer.contains("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
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
