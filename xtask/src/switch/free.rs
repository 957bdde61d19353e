//! The switch free-running: paced by the wall clock, for people and for real clients and servers.
//!
//! A port is a pair of UDP ports on the loopback, one frame per datagram, as Bochs' `socket` module and QEMU's
//! `-netdev dgram` speak it: the machine receives on PORT and sends to PORT + 1. Cables and partitions are the same as in
//! lock-step and drawn from the same seed, but when a frame comes is up to the machines and their host, so no two runs
//! are alike.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::config::{Config, PortName};
use super::fabric::{Fabric, PortId, StationId};
use super::process::Captures;
use super::time::Ns;
use super::wire::FRAME_BYTES;
use super::world::World;
use crate::run::find_program;

/// Longest sleep, so that captures are written and the end is seen while nothing happens.
const LONGEST_SLEEP: Ns = 20_000_000;

/// Where a port's machine is: it receives on `udp` and sends to `udp` + 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plug {
    /// The port, which the configuration must have.
    pub port: PortName,
    /// The machine's UDP port.
    pub udp: u16,
}

impl Plug {
    /// Reads `a:0=40000`; `a=40000` means card 0.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self> {
        let (port, udp) = text.split_once('=').context("write NAME=PORT, for instance a=40000")?;
        let udp = udp.parse().ok().filter(|p| (1024..u16::MAX).contains(p));
        let udp = udp.with_context(|| format!("`{text}` has no UDP port from 1024 to 65534"))?;
        Ok(Self { port: PortName::parse(port)?, udp })
    }
}

/// Most times that a station is called at one moment: beyond it, its timer does not advance.
const STATION_SPIN: u32 = 10_000;

struct Machine {
    socket: UdpSocket,
    station: StationId,
    port: PortId,
}

/// A station inside the switch, by wall-clock time.
struct Inside {
    station: StationId,
    port: PortId,
    world: Box<dyn World>,
}

/// What happened at the end.
pub struct FreeEnd {
    /// The network.
    pub fabric: Fabric,
    /// Wall-clock time that passed, ns.
    pub elapsed: Ns,
    /// What the stations inside the switch say.
    pub worlds: Vec<(String, String)>,
}

/// Runs until `config.end`, or for ever.
///
/// # Errors
/// When the configuration asks for what needs lock-step, a UDP port is taken, or a capture cannot be written.
pub fn run(config: &Config, plugs: &[Plug]) -> Result<Fabric> {
    let needs_lockstep = !config.stops.is_empty() || !config.worlds.is_empty();
    ensure!(
        !needs_lockstep,
        "kills, pauses and worlds need lock-step: leave them out, or run without --free"
    );
    Ok(run_with(config, plugs, Vec::new(), |_| true)?.fabric)
}

/// The same with stations inside the switch, which are driven by the wall clock here. `go_on` is asked again and again with the time.
///
/// # Errors
/// As [`run`], or when a station is missing or unknown.
pub fn run_with(
    config: &Config,
    plugs: &[Plug],
    worlds: Vec<(String, Box<dyn World>)>,
    mut go_on: impl FnMut(Ns) -> bool,
) -> Result<FreeEnd> {
    config.check_free()?;
    ensure!(config.stops.is_empty(), "kills and pauses need lock-step");
    ensure!(worlds.len() == config.worlds.len(), "a station of the scenario is missing");
    let mut fabric = Fabric::new(config);
    let mut inside = Vec::new();
    for (name, world) in worlds {
        let index = config.worlds.iter().position(|w| *w == name);
        let station = config.hosts.len() + index.with_context(|| format!("there is no station `{name}`"))?;
        let port = fabric.port(station, 0);
        let port = port.with_context(|| format!("no network has the port {name}"))?;
        fabric.plug(station, true);
        inside.push(Inside { station, port, world });
    }
    let mut machines = Vec::new();
    for plug in plugs {
        machines.push(connect(config, &mut fabric, plug)?);
    }
    let mut captures = Captures::open(config)?;
    let start = Instant::now();
    loop {
        let now = elapsed(start);
        fabric.settle(now);
        captures.write(fabric.take_seen())?;
        deliver(&mut fabric, &machines, now);
        inside.iter_mut().for_each(|station| station.serve(&mut fabric, now));
        if config.end.is_some_and(|end| now >= end) || !go_on(now) {
            captures.finish()?;
            let told = config.worlds.iter().zip(&inside);
            let worlds = told.map(|(name, station)| (name.clone(), station.world.summary())).collect();
            return Ok(FreeEnd { fabric, elapsed: now, worlds });
        }
        let end = config.end.unwrap_or(Ns::MAX);
        let stations = machines.iter().map(|m| m.station).chain(inside.iter().map(|s| s.station));
        let due = stations.filter_map(|station| fabric.next_due(station)).min().unwrap_or(Ns::MAX);
        let timer = inside.iter().filter_map(|station| station.world.next_timer()).min().unwrap_or(Ns::MAX);
        // What a station has just sent waits for the next settling.
        let sent = if fabric.has_sent() { now } else { Ns::MAX };
        let wake = due.min(end).min(timer).min(sent).min(fabric.next_arrival().unwrap_or(Ns::MAX));
        if wake > now {
            sleep(&machines, (wake - now).min(LONGEST_SLEEP))?;
        } else {
            captures.flush()?;
        }
        listen(&mut fabric, &machines, start);
    }
}

fn connect(config: &Config, fabric: &mut Fabric, plug: &Plug) -> Result<Machine> {
    let station = config.hosts.iter().position(|h| h.name == plug.port.station);
    let station = station.with_context(|| format!("there is no host `{}`", plug.port.station))?;
    let port = fabric.port(station, plug.port.port);
    let port = port.with_context(|| format!("no network has the port {}", plug.port))?;
    fabric.plug(station, true);
    let ours = plug.udp + 1;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, ours)).with_context(|| {
        format!("cannot take UDP port {ours} for {}: is another switch running?", plug.port)
    })?;
    socket.connect((Ipv4Addr::LOCALHOST, plug.udp))?;
    socket.set_nonblocking(true)?;
    Ok(Machine { socket, station, port })
}

impl Inside {
    /// Lets the station have what has come and what its timer says.
    fn serve(&mut self, fabric: &mut Fabric, now: Ns) {
        let mut send = Vec::new();
        while let Some(due) = fabric.take_due(self.station, now) {
            self.world.frame(now, &due.frame, &mut send);
        }
        for _ in 0..STATION_SPIN {
            if self.world.next_timer().is_none_or(|timer| timer > now) {
                break;
            }
            self.world.timer(now, &mut send);
        }
        send.into_iter().for_each(|frame| fabric.send(self.port, now, frame.into()));
    }
}

fn elapsed(start: Instant) -> Ns {
    Ns::try_from(start.elapsed().as_nanos()).unwrap_or(Ns::MAX)
}

fn deliver(fabric: &mut Fabric, machines: &[Machine], now: Ns) {
    for machine in machines {
        // A station with two cards takes what is due at either, so look for the socket by port.
        while let Some(due) = fabric.take_due(machine.station, now) {
            if let Some(to) = machines.iter().find(|m| m.port == due.port) {
                // Nobody there, or no room: that is how a cable loses frames.
                let _ = to.socket.send(&due.frame);
            }
        }
    }
}

fn listen(fabric: &mut Fabric, machines: &[Machine], start: Instant) {
    let mut bytes = vec![0; *FRAME_BYTES.end() + 1];
    for machine in machines {
        loop {
            match machine.socket.recv(&mut bytes) {
                Ok(len) if FRAME_BYTES.contains(&len) => {
                    fabric.send(machine.port, elapsed(start), bytes[..len].into());
                }
                Ok(_) => {}
                // The machine is not up (ICMP said so).
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
    }
}

fn sleep(machines: &[Machine], length: Ns) -> Result<()> {
    let mut fds: Vec<PollFd> = machines.iter().map(|m| PollFd::new(&m.socket, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::try_from(length).unwrap_or(0) };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e).context("cannot wait for frames"),
    }
}

/// The command that joins a TAP interface of this host to a plug. `socat` does the work: it makes the interface, which
/// needs the right to do so, and passes frames as datagrams.
///
/// # Errors
/// When `socat` is missing.
pub fn tap(interface: &str, plug: &Plug) -> Result<Command> {
    let Some(socat) = find_program("socat") else {
        bail!("a TAP interface needs the program socat: install the package socat (apt-get install socat)");
    };
    let mut command = Command::new(socat);
    command.args(tap_arguments(interface, plug.udp));
    Ok(command)
}

fn tap_arguments(interface: &str, udp: u16) -> [String; 2] {
    let ours = udp + 1;
    [
        format!("UDP4-DATAGRAM:127.0.0.1:{ours},bind=127.0.0.1:{udp}"),
        format!("TUN,tun-type=tap,iff-no-pi,tun-name={interface},iff-up"),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::cable::CableConfig;
    use super::super::config::{Stop, StopKind, When};
    use super::super::time::Ppm;
    use super::*;

    /// How long a frame may take on a loaded machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A machine's side of a plug on free UDP ports.
    fn machine(name: &str) -> (UdpSocket, Plug) {
        loop {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let udp = socket.local_addr().unwrap().port();
            if udp < u16::MAX && UdpSocket::bind((Ipv4Addr::LOCALHOST, udp + 1)).is_ok() {
                socket.connect((Ipv4Addr::LOCALHOST, udp + 1)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                return (socket, Plug { port: PortName::new(name, 0), udp });
            }
        }
    }

    fn config(loss: u32) -> Config {
        let cable = CableConfig { latency: 1_000_000, loss: Ppm(loss), ..CableConfig::default() };
        Config { end: Some(3_000_000_000), ..Config::lan(1, &["a", "b"], &cable) }
    }

    #[test]
    fn frames_pass_between_udp_ports() {
        let ((a, plug_a), (b, plug_b)) = (machine("a"), machine("b"));
        let config = config(0);
        let frame = [&[0xff; 6][..], &[2; 6], &[0x88, 0xb5], b"hello"].concat();
        std::thread::scope(|scope| {
            let switch = scope.spawn(|| run(&config, &[plug_a, plug_b]).unwrap());
            let mut got = [0; 100];
            let since = Instant::now();
            // The switch may not be up yet when the first leave.
            let n = loop {
                let _ = a.send(&frame);
                match b.recv(&mut got) {
                    Ok(n) => break n,
                    Err(_) => assert!(since.elapsed() < PATIENCE, "nothing came"),
                }
            };
            assert_eq!(got[..n], frame);
            let fabric = switch.join().unwrap();
            assert!(fabric.totals().next().unwrap().2.frames > 0);
        });
    }

    #[test]
    fn what_needs_lockstep_is_refused() {
        let mut config = config(0);
        config.stops.push(Stop { host: "a".into(), when: When::At(1), what: StopKind::Kill });
        assert!(run(&config, &[]).err().unwrap().to_string().contains("without --free"));
    }

    #[test]
    fn plugs_and_taps() {
        let plug = Plug::parse("a:1=40000").unwrap();
        assert_eq!(plug, Plug { port: PortName::new("a", 1), udp: 40000 });
        for bad in ["a", "a=0", "a=65535", "=5000", "a=x"] {
            assert!(Plug::parse(bad).is_err(), "{bad}");
        }
        let arguments = tap_arguments("tap0", 40000);
        assert_eq!(arguments[0], "UDP4-DATAGRAM:127.0.0.1:40001,bind=127.0.0.1:40000");
        assert!(run(&config(0), &[Plug::parse("z=40000").unwrap()]).is_err());
    }
}
