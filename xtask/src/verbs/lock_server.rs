//! `cargo xtask lock-server`: the arbiter for tests as a process, on this computer's own network and clock.

use std::net::{SocketAddrV4, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ft::arbiter::lock::wire::REQUEST;
use ft::arbiter::lock::{Counters, Server};

use crate::switch::station::lock::{MACHINES, asked};
use crate::switch::time::{Ns, parse_duration};
use crate::ui;

/// Decide which host of a pair goes on alone: the arbiter for tests.
///
/// It is UNSAFE: what it knows is in its memory alone, and nothing authenticates it. A pair's configuration names it as
/// [pair.arbiter] with kind = "lock-server". It runs until it is interrupted. For emulated hosts, `cargo xtask pair` has one of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cargo xtask lock-server --listen 10.77.0.9:5409 --say")]
pub struct Args {
    /// Where it listens: IPv4 address and UDP port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:5409")]
    listen: SocketAddrV4,
    /// Say what it is asked
    #[arg(long)]
    say: bool,
    /// Take so long for an answer
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    delay: Ns,
    /// Do what the first N requests ask for, but lose the answers
    #[arg(long, value_name = "N", default_value_t = 0)]
    unsaid: u64,
    /// End after so many requests
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
}

/// Runs the verb.
///
/// # Errors
/// When the port is taken, or the socket fails.
pub fn run(args: Args) -> Result<ExitCode> {
    let socket = UdpSocket::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    ui::say(format!("lock server on {} (UNSAFE: for tests)", socket.local_addr()?));
    let counters = serve(&socket, &args)?;
    ui::say(words(&counters));
    Ok(ExitCode::SUCCESS)
}

fn serve(socket: &UdpSocket, args: &Args) -> Result<Counters> {
    let mut server = Server::new(MACHINES);
    let since = Instant::now();
    // A byte more than a request has: a longer datagram is none.
    let mut buffer = [0; REQUEST + 1];
    while args.requests.is_none_or(|most| server.counters().requests < most) {
        let (length, from) = match socket.recv_from(&mut buffer) {
            Ok(came) => came,
            // Somebody who is gone has been answered: that comes back as an error of the next call.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error).context("the lock server's socket failed"),
        };
        let question = &buffer[..length];
        let Some(answer) = server.datagram(question) else { continue };
        let said = server.counters().requests > args.unsaid;
        let now = Ns::try_from(since.elapsed().as_nanos()).unwrap_or(Ns::MAX);
        if let Some(asked) = asked(now, question, &answer, said).filter(|_| args.say) {
            ui::say(format!("{asked} ({from})"));
        }
        if said {
            std::thread::sleep(Duration::from_nanos(args.delay));
            let _ = socket.send_to(&answer, from);
        }
    }
    Ok(server.counters())
}

fn words(counters: &Counters) -> String {
    format!(
        "{} requests, {} datagrams that are none; {} generations armed, {} won, {} lost, {} requests refused",
        counters.requests, counters.garbage, counters.armed, counters.won, counters.lost, counters.refused
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ft::arbiter::lock::wire::{Operation, Reply, Request, Verdict};
    use ft::arbiter::record::VmId;
    use ft::keys::Incarnation;
    use ft::side::Side;

    #[test]
    fn a_process_decides_as_the_station_does() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let listen = "127.0.0.1:1".parse().unwrap();
        let args = Args { listen, say: false, delay: 0, unsaid: 1, requests: Some(3) };
        let server = std::thread::spawn(move || serve(&socket, &args).unwrap());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ask = |side: Side, operation, wait| {
            let nonce = Incarnation(side as u64);
            let request = Request { id: 1, vm: VmId::of("web"), generation: 1, side, nonce, operation };
            client.send_to(&request.emit(), to).unwrap();
            client.set_read_timeout(Some(Duration::from_millis(wait))).unwrap();
            let mut reply = [0; 128];
            let length = client.recv(&mut reply).ok()?;
            Reply::parse(&reply[..length]).map(|reply| reply.verdict)
        };
        client.send_to(b"garbage", to).unwrap();
        let arm = Operation::Arm { peer: Incarnation(Side::B as u64) };
        assert_eq!(ask(Side::A, arm, 200), None, "done, but not said");
        let contend = Operation::Contend { position: 0 };
        assert_eq!(ask(Side::B, contend, 20_000), Some(Verdict::Won));
        assert_eq!(ask(Side::A, contend, 20_000), Some(Verdict::Lost));
        let counters = server.join().unwrap();
        assert_eq!((counters.requests, counters.garbage, counters.armed, counters.won), (3, 1, 1, 1));
    }
}
