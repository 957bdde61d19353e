//! Guests with programs of packages on top of the workload guest: servers, a program that stresses the machine, and the
//! clients that measure the servers from a plain machine beside Lockstep's.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::programs::Trees;
use super::workload::{self, Linux};
use crate::emulator::{Machine, Nic, NicMode};
use crate::linux::{self, Flavour};
use crate::modules::Modules;
use crate::vm::{Description, Start};

/// A client's address, the one that a guest takes for its way outside.
const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The last byte of a client's card's address.
const CLIENT_CARD: u8 = 0x60;

/// A guest with programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The name of its load, which starts them.
    pub load: &'static str,
    /// The kernel. The one for virtual machines has no drivers for real cards.
    pub(super) flavour: Flavour,
    pub(super) packages: &'static [&'static str],
    pub(super) programs: &'static [&'static str],
    /// What the load does, in the words of `tests/workload/init`.
    pub(super) script: &'static str,
    /// More files: path and contents.
    pub(super) files: &'static [(&'static str, &'static str)],
}

/// redis-server on 6379, until somebody connects to port 9; then the requests that it has answered. With `tick=1` the console hears
/// of each second.
pub const REDIS: Programs = Programs {
    load: "redis",
    flavour: Flavour::Cloud,
    packages: &["redis-server", "redis-tools"],
    programs: &["/usr/bin/redis-check-rdb", "/usr/bin/redis-benchmark", "/usr/bin/redis-cli"],
    script: "network
ln -s /usr/bin/redis-check-rdb /usr/bin/redis-server
echo 1 >/proc/sys/vm/overcommit_memory
redis-server --bind 0.0.0.0 --protected-mode no --save '' --loglevel warning &
tries=0
until redis-cli ping 2>/dev/null | grep -q PONG || [ $tries -gt 50 ]; do sleep 1; tries=$((tries + 1)); done
mark SERVING
if [ -n \"$(word tick)\" ]; then while :; do sleep 1; echo \"this guest is up for $(uptime_now) s\"; done & fi
if [ -n \"$(word self)\" ]; then redis-benchmark -q -n \"$N\" -t set,get,incr,lpush; else nc -l -p 9 </dev/null >/dev/null; fi
redis-cli info stats | grep total_commands_processed
redis-cli shutdown nosave
",
    files: &[],
};

/// nginx on 80, until somebody connects to port 9. With `lines=1` it has a file /lines of numbers, 2.4 MB.
pub const NGINX: Programs = Programs {
    load: "nginx",
    flavour: Flavour::Cloud,
    packages: &["nginx"],
    programs: &["/usr/sbin/nginx"],
    script: "network
mkdir -p /www /var/log/nginx /var/lib/nginx /run
dd if=/dev/zero of=/www/file8 bs=1M count=8 2>/dev/null
echo ok >/www/index.html
if [ -n \"$(word lines)\" ]; then seq 1 100000 >/tmp/l; cat /tmp/l /tmp/l /tmp/l /tmp/l >/www/lines; fi
nginx -c /lib/load/nginx.conf &
mark SERVING
nc -l -p 9 </dev/null >/dev/null
",
    files: &[(
        "lib/load/nginx.conf",
        "user root;
daemon off;
worker_processes 1;
error_log /dev/console warn;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
  access_log off;
  sendfile on;
  server { listen 80; root /www; }
}
",
    )],
};

/// Dropbear's ssh server on 22, until somebody connects to port 9, with a file /data of 5.9 MB. Its host key and the key that may log
/// in are made of texts (see [`super::clients::SSH`]): everybody knows them, and they guard nothing. With `again=1` it then starts
/// itself again instead of switching itself off.
pub const SSH: Programs = Programs {
    load: "ssh",
    flavour: Flavour::Cloud,
    packages: &["dropbear-bin"],
    programs: &["/usr/sbin/dropbear"],
    script: "network
seq 1 100000 >/tmp/l
for i in 1 2 3 4 5 6 7 8 9 10; do cat /tmp/l; done >/data
mkdir -p /.ssh
chmod 755 / && chmod 700 /.ssh
cp /lib/load/may-enter /.ssh/authorized_keys
chmod 600 /.ssh/authorized_keys
base64 -d </lib/load/host-key >/tmp/host-key
dropbear -F -E -s -W 262144 -P /tmp/pid -r /tmp/host-key &
mark SERVING
nc -l -p 9 </dev/null >/dev/null
[ -n \"$(word again)\" ] && reboot -f
",
    files: &[
        // An Ed25519 key as Dropbear stores it: name, then seed and public key. The seed is a text, as everybody can see.
        (
            "lib/load/host-key",
            "AAAAC3NzaC1lZDI1NTE5AAAAQHRoZSBob3N0IGtleSBvZiBhIHRlc3QsIG5vIG1vcmUg5hc7IsorutUlVVqQeDhUk+4GTfK1pl6MTksbA25Pets=
",
        ),
        (
            "lib/load/may-enter",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIxf5Em3O8HXPAS9K4X9xGcAag9VYYax7p/DML1CZkzN client
",
        ),
    ],
};

/// stress-ng's processor, memory and timer stressors, each checking itself, for `n` seconds.
pub const STRESS: Programs = Programs {
    load: "stress",
    flavour: Flavour::Cloud,
    packages: &["stress-ng"],
    programs: &["/usr/bin/stress-ng"],
    script: "mkdir -p /dev/shm /run
mount -t tmpfs shm /dev/shm
cd /tmp
stress-ng --cpu 1 --vm 1 --vm-bytes 32M --timer 1 --timer-freq 1000 --verify --timeout \"$N\" --metrics-brief --log-brief
echo stress=$?
",
    files: &[],
};

/// redis-benchmark with `n` requests of each kind against the redis-server at `srv`, then checks of what the server holds.
/// It says what it finds in `@@ CLIENT` lines, and switches the server off.
pub const REDIS_CLIENT: Programs = Programs {
    load: "redisclient",
    flavour: Flavour::Generic,
    packages: &["redis-tools"],
    programs: &["/usr/bin/redis-benchmark", "/usr/bin/redis-cli"],
    script: "network
redis() { redis-cli -h \"$SERVER\" \"$@\"; }
tries=0
until redis ping 2>/dev/null | grep -q PONG || [ $tries -gt 300 ]; do sleep 1; tries=$((tries + 1)); done
mark CLIENT connected tries=$tries
redis-benchmark -h \"$SERVER\" -q -n \"$N\" -c 4 -t set,get,incr 2>&1 | tr '\\r' '\\n' | grep -v 'rps=' |
  while read -r line; do [ -n \"$line\" ] && mark CLIENT \"$line\"; done
mark CLIENT counter=$(redis get counter:__rand_int__)
if [ \"$(redis -r 50 incr visits)\" = \"$(seq 1 50)\" ]; then mark CLIENT order=right; else mark CLIENT order=wrong; fi
head -c 49152 /dev/urandom | base64 >/tmp/value
redis -x set value </tmp/value
if [ \"$(redis get value)\" = \"$(cat /tmp/value)\" ]; then mark CLIENT value=right; else mark CLIENT value=wrong; fi
nc \"$SERVER\" 9 </dev/null
",
    files: &[],
};

/// wrk against the nginx at `srv` for `n` seconds, then one large file. It says what it finds in `@@ CLIENT` lines, and
/// switches the server off.
pub const NGINX_CLIENT: Programs = Programs {
    load: "nginxclient",
    flavour: Flavour::Generic,
    packages: &["wrk"],
    programs: &["/usr/bin/wrk"],
    script: "network
tries=0
until wget -q -O - http://\"$SERVER\"/index.html 2>/dev/null | grep -q ok || [ $tries -gt 300 ]; do
  sleep 1; tries=$((tries + 1))
done
mark CLIENT connected tries=$tries
wrk -t 1 -c 4 -d \"$N\"s --latency http://\"$SERVER\":80/index.html 2>&1 | while read -r line; do mark CLIENT \"$line\"; done
mark CLIENT file8=$(wget -q -O - http://\"$SERVER\"/file8 | sha256sum | cut -d ' ' -f 1)
nc \"$SERVER\" 9 </dev/null
",
    files: &[],
};

/// A plain emulated machine whose Linux is the client of the server at `server`; its one card is not plugged in yet.
///
/// # Errors
/// When a package cannot be had, or the medium cannot be made.
pub fn client(what: &Programs, name: &str, server: Ipv4Addr, n: u32) -> Result<Machine> {
    let linux = linux(what)?;
    let words =
        format!("{} wl={} n={n} gip={CLIENT_ADDRESS} srv={server}", workload::COMMAND_LINE, what.load);
    let start = Start::Kernel { kernel: linux.kernel, initrd: Some(linux.initrd), command_line: words };
    let machine = super::bare(&Description::new(what.load, start), name)?;
    let nics = vec![Nic::new(CLIENT_CARD, NicMode::Unplugged)];
    // The emulated processor has no machine-check registers; a Linux that knows its model wants them at least to read as 0.
    Ok(Machine { nics, strict_msrs: false, ..machine })
}

/// The guest of these programs, from the cache or made.
///
/// # Errors
/// When a package cannot be had.
pub fn linux(what: &Programs) -> Result<Linux> {
    let kernel = linux::kernel_of(what.flavour)?;
    let busybox = std::fs::read(linux::busybox_of(what.flavour)?)?;
    let mut archive = workload::with_modules(workload::base(&busybox)?, &Modules::of(&kernel.tree)?)?;
    archive = Trees::of(what.packages)?.add(archive, what.programs)?;
    archive = archive.file(&format!("lib/load/{}", what.load), what.script.as_bytes());
    let accounts = "root:x:0:0:root:/:/bin/sh\n";
    archive =
        archive.directory("etc").file("etc/passwd", accounts.as_bytes()).file("etc/group", b"root:x:0:\n");
    for (path, contents) in what.files {
        archive = archive.file(path, contents.as_bytes());
    }
    Ok(Linux { kernel: kernel.kernel, initrd: workload::stored(what.load, &archive.finish())? })
}
