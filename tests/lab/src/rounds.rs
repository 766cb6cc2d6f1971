//! Round trips: UDP request-response on one socket pair, and TCP connect-request-response.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    libc::linger,
    sys::socket::{setsockopt, sockopt},
};

use crate::NetNs;

/// Round trips, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RoundTrips {
    /// Each one's duration.
    pub times: Vec<Duration>,
    /// From the first to the last.
    pub elapsed: Duration,
}

impl RoundTrips {
    /// The time that `percent` of the round trips did not exceed; zero if there were none.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Duration {
        let mut sorted = self.times.clone();
        sorted.sort();
        let rank = (sorted.len() * usize::from(percent.min(100))).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// Round trips per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = self.times.len() as f64;
        count / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }
}

/// UDP: one datagram there, one back, for `duration`.
pub fn round_trips(
    client: &NetNs,
    server_netns: &NetNs,
    server: SocketAddr,
    duration: Duration,
) -> Result<RoundTrips> {
    let echo =
        server_netns.run(|| UdpSocket::bind(server).with_context(|| format!("receive at {server}")))?;
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let asking = client.run(|| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        Ok(socket)
    })?;
    echo.set_read_timeout(Some(Duration::from_millis(20)))?;
    asking.set_read_timeout(Some(Duration::from_secs(1)))?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((length, from)) = echo.recv_from(&mut buffer) {
                    let _ = echo.send_to(&buffer[..length], from);
                }
            }
        });
        let result = measure(duration, || {
            asking.send(&[0x5a; 32])?;
            let length = asking.recv(&mut [0; 64]).context("no answer within a second")?;
            ensure!(length == 32, "an answer of {length} octets");
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// TCP: connect, one octet there, one back, close; for `duration`.
pub fn connect_request_response(
    client: &NetNs,
    server_netns: &NetNs,
    server: SocketAddr,
    duration: Duration,
) -> Result<RoundTrips> {
    let listener =
        server_netns.run(|| TcpListener::bind(server).with_context(|| format!("listen at {server}")))?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    continue;
                };
                let mut octet = [0];
                if stream.read_exact(&mut octet).is_ok() {
                    let _ = stream.write_all(&octet);
                }
            }
        });
        let result = client.run(|| measure(duration, || one_connection(server)));
        stop.store(true, Ordering::Relaxed);
        // Wakes the server out of `accept`.
        let _ = client.run(|| Ok(TcpStream::connect_timeout(&server, Duration::from_secs(1))?));
        // If the path is broken, this does it from the server's own side.
        let _ = server_netns.run(|| Ok(TcpStream::connect_timeout(&server, Duration::from_secs(1))?));
        result
    })
}

fn one_connection(server: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(1)).context("connect")?;
    // Closing resets: no port is left waiting, so that they do not run out.
    setsockopt(
        &stream.as_fd(),
        sockopt::Linger,
        &linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(&[7])?;
    let mut octet = [0];
    stream
        .read_exact(&mut octet)
        .context("no answer within a second")?;
    ensure!(octet == [7], "a wrong answer");
    Ok(())
}

fn measure(duration: Duration, mut round: impl FnMut() -> Result<()>) -> Result<RoundTrips> {
    let mut result = RoundTrips::default();
    let begin = Instant::now();
    while begin.elapsed() < duration {
        let start = Instant::now();
        round()?;
        result.times.push(start.elapsed());
    }
    result.elapsed = begin.elapsed();
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let times = (1..=100).rev().map(Duration::from_micros).collect();
        let rounds = RoundTrips {
            times,
            elapsed: Duration::from_secs(2),
        };
        assert_eq!(rounds.percentile(50), Duration::from_micros(50));
        assert_eq!(rounds.percentile(99), Duration::from_micros(99));
        assert_eq!(rounds.percentile(100), Duration::from_micros(100));
        assert!((rounds.per_second() - 50.0).abs() < 1e-9);
        assert_eq!(RoundTrips::default().percentile(50), Duration::ZERO);
    }

    #[test]
    fn both_kinds_run_over_loopback_and_end() {
        let netns = NetNs::new("rounds").unwrap();
        let duration = Duration::from_millis(100);
        let server = "127.0.0.1:9002".parse().unwrap();
        assert!(
            !round_trips(&netns, &netns, server, duration)
                .unwrap()
                .times
                .is_empty()
        );
        assert!(
            !connect_request_response(&netns, &netns, server, duration)
                .unwrap()
                .times
                .is_empty()
        );
    }
}
