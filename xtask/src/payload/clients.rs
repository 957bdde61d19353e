//! The outside world of a pair's guest: a plain Debian on an emulated machine of its own, whose real programs use the guest's server
//! while something befalls the pair, and judge what they see.
//!
//! Each says what it finds in `@@ CLIENT` lines, the last of which is `verdict=right` if nobody could have noticed anything but delay.
//! It notes `load` (see [`crate::switch::station::notes`]) when all of its programs are at work, and switches the server off at the
//! end.

use super::Payload;
use super::server::Programs;
use crate::linux::Flavour;

/// What each of them begins with: the network, notes, and what Linux counts of its connections.
macro_rules! beginning {
    () => {
        "network
note() { wget -q -O /dev/null http://10.0.2.5/\"$1\"; }
verdict=right
wrong() { verdict=wrong; mark CLIENT wrong: \"$*\"; }
# Connections that failed, connections that were reset, segments sent again.
tcp() { set -- $(grep '^Tcp: [0-9]' /proc/net/snmp); echo \"$8 $9 ${13}\"; }
# Its word: how many connections a client itself may have broken off.
judge_tcp() {
  set -- $before $(tcp) \"$1\"
  mark CLIENT tcp failed=$(($4 - $1)) reset=$(($5 - $2)) sent-again=$(($6 - $3))
  [ $(($4 - $1)) = 0 ] && [ $(($5 - $2)) -le \"$7\" ] || wrong connections broke
}
"
    };
}

/// redis-benchmark with four connections and `n` requests of a kind; a client on a connection of its own that counts through all of
/// it, and knows what every answer must be; ping. Then everything that was acknowledged must be there.
pub const REDIS: Programs = Programs {
    load: "redisoutside",
    flavour: Flavour::Generic,
    packages: &["redis-tools"],
    programs: &["/usr/bin/redis-benchmark", "/usr/bin/redis-cli"],
    script: concat!(
        beginning!(),
        "redis() { redis-cli -h \"$SERVER\" \"$@\"; }
tries=0
until redis ping 2>/dev/null | grep -q PONG || [ $tries -gt 300 ]; do sleep 1; tries=$((tries + 1)); done
mark CLIENT connected tries=$tries
before=$(tcp)
ping -c 20 -i 0.1 \"$SERVER\" >/tmp/ping 2>&1 & pings=$!
redis -r \"$N\" -i 0.01 incr visits >/tmp/visits 2>&1 & visits=$!
(i=1; while [ $i -le 20 ]; do echo \"set key$i value$i\"; i=$((i + 1)); done) | redis >/tmp/sets 2>&1
redis-benchmark -h \"$SERVER\" -q -n \"$N\" -c 4 -t set,get,incr >/tmp/benchmark 2>&1 & benchmark=$!
note load
wait $benchmark || wrong the benchmark ended with $?
tr '\\r' '\\n' </tmp/benchmark | grep -v 'rps=' | while read -r line; do [ -n \"$line\" ] && mark CLIENT \"$line\"; done
[ \"$(grep -c 'requests per second' /tmp/benchmark)\" = 3 ] || wrong a benchmark is missing
wait $visits
seq 1 \"$N\" >/tmp/wanted
cmp -s /tmp/visits /tmp/wanted || wrong \"counted $(tail -n 1 /tmp/visits) in $(wc -l </tmp/visits) answers, not $N\"
counter=$(redis get counter:__rand_int__)
mark CLIENT counted=$(tail -n 1 /tmp/visits) counter=$counter visits=$(redis get visits) sets=$(grep -c OK /tmp/sets)
[ \"$counter\" = \"$N\" ] || wrong the benchmark has counted to $counter
[ \"$(redis get visits)\" = \"$N\" ] || wrong visits
i=1
while [ $i -le 20 ]; do [ \"$(redis get key$i)\" = value$i ] || wrong key$i; i=$((i + 1)); done
wait $pings
mark CLIENT \"$(grep transmitted /tmp/ping)\"
judge_tcp 0
mark CLIENT verdict=$verdict
nc \"$SERVER\" 9 </dev/null
"
    ),
    files: &[],
};

/// wrk with four connections for `n` seconds, every answer's content checked; meanwhile a download of 2.4 MB whose hash must be right;
/// ping.
pub const NGINX: Programs = Programs {
    load: "nginxoutside",
    flavour: Flavour::Generic,
    packages: &["wrk"],
    programs: &["/usr/bin/wrk"],
    script: concat!(
        beginning!(),
        "tries=0
until wget -q -O - http://\"$SERVER\"/index.html 2>/dev/null | grep -q ok || [ $tries -gt 300 ]; do
  sleep 1; tries=$((tries + 1))
done
mark CLIENT connected tries=$tries
seq 1 100000 >/tmp/lines
wanted=$(cat /tmp/lines /tmp/lines /tmp/lines /tmp/lines | sha256sum | cut -d ' ' -f 1)
before=$(tcp)
ping -c 20 -i 0.1 \"$SERVER\" >/tmp/ping 2>&1 & pings=$!
wget -q -O - http://\"$SERVER\"/lines | sha256sum >/tmp/hash & download=$!
wrk -t 1 -c 4 -d \"$N\"s --timeout 10s -s /lib/load/check.lua http://\"$SERVER\":80/index.html >/tmp/wrk 2>&1 & wrk=$!
note load
wait $wrk || wrong wrk ended with $?
while read -r line; do mark CLIENT \"$line\"; done </tmp/wrk
grep -q '^wrong contents: 0$' /tmp/wrk || wrong contents
grep -q -e 'Socket errors' -e 'Non-2xx' /tmp/wrk && wrong wrk has seen errors
wait $download
mark CLIENT hash=$(cut -d ' ' -f 1 /tmp/hash)
[ \"$(cut -d ' ' -f 1 /tmp/hash)\" = \"$wanted\" ] || wrong the hash is not $wanted
wait $pings
mark CLIENT \"$(grep transmitted /tmp/ping)\"
# When its time is over, wrk drops its connections in the midst of what they do; others that break it reports.
judge_tcp 4
mark CLIENT verdict=$verdict
nc \"$SERVER\" 9 </dev/null
"
    ),
    files: &[(
        "lib/load/check.lua",
        "local threads = {}
bad = 0
function setup(thread) table.insert(threads, thread) end
function response(status, headers, body)
  if status ~= 200 or body ~= 'ok\\n' then bad = bad + 1 end
end
function done(summary, latency, requests)
  local sum = 0
  for _, thread in ipairs(threads) do sum = sum + thread:get('bad') end
  print('wrong contents: ' .. sum)
end
",
    )],
};

/// Three ssh connections at once, whose host must have the key that is known: a download of 5.9 MB and an upload of 1.2 MB, both with
/// their hashes, and a session in which the guest's shell counts to `n`, a line every 20 ms; ping. All are at work when the first
/// megabyte has come.
pub const SSH: Programs = Programs {
    load: "sshoutside",
    flavour: Flavour::Generic,
    packages: &["dropbear-bin"],
    programs: &["/usr/bin/dbclient"],
    script: concat!(
        beginning!(),
        "mkdir -p /.ssh
base64 -d </lib/load/key >/tmp/key
echo \"$SERVER $(cat /lib/load/host)\" >/.ssh/known_hosts
ssh() { dbclient -T -W 262144 -i /tmp/key root@\"$SERVER\" \"$@\"; }
seq 1 100000 >/tmp/lines
wanted=$(for i in 1 2 3 4 5 6 7 8 9 10; do cat /tmp/lines; done | sha256sum | cut -d ' ' -f 1)
cat /tmp/lines /tmp/lines >/tmp/up
sent=$(sha256sum </tmp/up | cut -d ' ' -f 1)
tries=0
until ssh true </dev/null 2>/tmp/refused || [ $tries -gt 100 ]; do sleep 1; tries=$((tries + 1)); done
mark CLIENT connected tries=$tries
before=$(tcp)
ping -c 40 -i 0.1 \"$SERVER\" >/tmp/ping 2>&1 & pings=$!
ssh \"i=1; while [ \\$i -le $N ]; do echo \\$i; usleep 20000; i=\\$((i + 1)); done\" </dev/null >/tmp/count 2>&1 & count=$!
ssh 'sha256sum' </tmp/up >/tmp/uploaded 2>&1 & upload=$!
ssh 'cat /data' </dev/null 2>/tmp/errors | {
  dd bs=64k count=16 iflag=fullblock 2>/dev/null
  note load
  cat
} | sha256sum | cut -d ' ' -f 1 >/tmp/hash
[ \"$(cat /tmp/hash)\" = \"$wanted\" ] || wrong \"the hash is not $wanted: $(head -n 3 /tmp/errors)\"
mark CLIENT hash=$(cat /tmp/hash)
wait $upload || wrong the upload ended with $?
[ \"$(cut -d ' ' -f 1 /tmp/uploaded)\" = \"$sent\" ] || wrong \"the guest was sent $sent and has $(head -n 3 /tmp/uploaded)\"
wait $count || wrong the session ended with $?
seq 1 \"$N\" >/tmp/wanted
cmp -s /tmp/count /tmp/wanted || wrong \"the session: $(tail -n 3 /tmp/count)\"
mark CLIENT uploaded=$(cut -d ' ' -f 1 /tmp/uploaded) session=$(tail -n 1 /tmp/count)
wait $pings
mark CLIENT \"$(grep transmitted /tmp/ping)\"
judge_tcp 0
mark CLIENT verdict=$verdict
nc \"$SERVER\" 9 </dev/null
"
    ),
    files: &[
        // As the server's: an Ed25519 key whose seed is a text.
        (
            "lib/load/key",
            "AAAAC3NzaC1lZDI1NTE5AAAAQHRoZSBjbGllbnQga2V5IG9mIGEgdGVzdCwgbm8gbW9yjF/kSbc7wdc8BL0rhf3EZwBqD1VhhrHun8MwvUJmTM0=
",
        ),
        (
            "lib/load/host",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOYXOyLKK7rVJVVakHg4VJPuBk3ytaZejE5LGwNuT3rb
",
        ),
    ],
};

/// The client of a guest's server, if it has one.
pub const fn of(guest: Payload) -> Option<&'static Programs> {
    match guest {
        Payload::Redis => Some(&REDIS),
        Payload::Nginx => Some(&NGINX),
        Payload::Ssh => Some(&SSH),
        _ => None,
    }
}

/// What it has said, as far as it is a verdict: `None` when it never came to one.
pub fn verdict(told: &[String]) -> Option<bool> {
    // Behind each mark stands the time.
    let mut words = told.iter().filter_map(|line| line.split_whitespace().next()?.strip_prefix("verdict="));
    words.next_back().map(|word| word == "right")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_verdict_counts() {
        let told = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(verdict(&told(&["connected tries=1 up=3"])), None);
        assert_eq!(verdict(&told(&["connected up=3", "verdict=right up=9.1"])), Some(true));
        assert_eq!(verdict(&told(&["wrong: hash up=9", "verdict=wrong up=9.1"])), Some(false));
    }
}
