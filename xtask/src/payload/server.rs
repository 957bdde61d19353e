//! Guests with programs of packages on top of the workload guest: servers, and a program that stresses the machine.

use anyhow::Result;

use super::programs::Trees;
use super::workload::{self, Linux};
use crate::linux::{self, Flavour};
use crate::modules::Modules;

/// A guest with programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The name of its load, which starts them.
    pub load: &'static str,
    packages: &'static [&'static str],
    programs: &'static [&'static str],
    /// What the load does, in the words of `tests/workload/init`.
    script: &'static str,
    /// More files: path and contents.
    files: &'static [(&'static str, &'static str)],
}

/// redis-server on 6379, until somebody connects to port 9; then the requests that it has answered.
pub const REDIS: Programs = Programs {
    load: "redis",
    packages: &["redis-server", "redis-tools"],
    programs: &["/usr/bin/redis-check-rdb", "/usr/bin/redis-benchmark", "/usr/bin/redis-cli"],
    script: "network
ln -s /usr/bin/redis-check-rdb /usr/bin/redis-server
echo 1 >/proc/sys/vm/overcommit_memory
redis-server --bind 0.0.0.0 --protected-mode no --save '' --loglevel warning &
tries=0
until redis-cli ping 2>/dev/null | grep -q PONG || [ $tries -gt 50 ]; do sleep 1; tries=$((tries + 1)); done
mark SERVING
if [ -n \"$(word self)\" ]; then redis-benchmark -q -n \"$N\" -t set,get,incr,lpush; else nc -l -p 9 </dev/null >/dev/null; fi
redis-cli info stats | grep total_commands_processed
redis-cli shutdown nosave
",
    files: &[],
};

/// nginx on 80, until somebody connects to port 9.
pub const NGINX: Programs = Programs {
    load: "nginx",
    packages: &["nginx"],
    programs: &["/usr/sbin/nginx"],
    script: "network
mkdir -p /www /var/log/nginx /var/lib/nginx /run
dd if=/dev/zero of=/www/file8 bs=1M count=8 2>/dev/null
echo ok >/www/index.html
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

/// stress-ng's processor, memory and timer stressors, each checking itself, for `n` seconds.
pub const STRESS: Programs = Programs {
    load: "stress",
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

/// The guest of these programs: Debian's kernel for virtual machines, from the cache or made.
///
/// # Errors
/// When a package cannot be had.
pub fn linux(what: &Programs) -> Result<Linux> {
    let kernel = linux::kernel_of(Flavour::Cloud)?;
    let busybox = std::fs::read(linux::busybox_of(Flavour::Cloud)?)?;
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
