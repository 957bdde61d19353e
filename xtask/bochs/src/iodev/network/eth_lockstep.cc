/////////////////////////////////////////////////////////////////////////
// Lockstep: the lock-step network. An ethmod that meets a switch process at
// every quantum of emulated time (docs/switch.md)
//
//  This library is free software; you can redistribute it and/or
//  modify it under the terms of the GNU Lesser General Public
//  License as published by the Free Software Foundation; either
//  version 2.1 of the License, or (at your option) any later version.
//
//  This library is distributed in the hope that it will be useful,
//  but WITHOUT ANY WARRANTY; without even the implied warranty of
//  MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the GNU
//  Lesser General Public License for more details.
//
//  You should have received a copy of the GNU Lesser General Public
//  License along with this library (COPYING.LGPL-2.1); if not, write to the
//  Free Software Foundation, Inc., 51 Franklin St, Fifth Floor, Boston,
//  MA 02110-1301 USA
/////////////////////////////////////////////////////////////////////////
// One session per emulator process, whatever the number of cards. The session
// owns one timer. It fires at the ticks at which frames are due, which are then
// handed to their card, and at the tick up to which the switch let this host
// run. There the session hands over what the cards sent, waits for the switch,
// and takes the next tick and the frames due until then. The socket is read
// nowhere else, so wall-clock time cannot be seen by the guest.

#define BX_PLUGGABLE

#include "bochs.h"
#include "plugin.h"
#include "pc_system.h"
#include "param_names.h"
#include "gui/siminterface.h"
#include "cpu/cpu.h"
#include "cpu/lockstep.h"
#include "netmod.h"
#include "eth_lockstep.h"

#if BX_NETWORKING

#include <deque>
#include <string>
#include <vector>
#include <errno.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

PLUGIN_ENTRY_FOR_NET_MODULE(lockstep)
{
  if (mode == PLUGIN_PROBE) {
    return (int)PLUGTYPE_NET;
  }
  return 0; // Success
}

#define LOG_THIS netdev->

class bx_lockstep_pktmover_c;

// A frame with the tick at which it was sent or is due.
struct lockstep_frame_t {
  Bit64u tick;
  Bit8u port;
  std::string bytes;
};

// Bytes of a message under construction.
class lockstep_writer_c {
public:
  std::string out;
  void put8(Bit8u v)   { out.push_back((char)v); }
  void put16(Bit16u v) { put(v, 2); }
  void put32(Bit32u v) { put(v, 4); }
  void put64(Bit64u v) { put(v, 8); }
  void bytes(const void *p, size_t n) { out.append((const char *)p, n); }
  void frame(const lockstep_frame_t &f) {
    put64(f.tick);
    put8(f.port);
    put16((Bit16u)f.bytes.size());
    out += f.bytes;
  }
private:
  void put(Bit64u v, unsigned n) { while (n--) { put8((Bit8u)v); v >>= 8; } }
};

class lockstep_session_c {
public:
  void join(const char *ethdev, const char *mac, bx_lockstep_pktmover_c *port, Bit8u *number);
  void send(Bit8u port, const void *buf, unsigned len);
  void leave(int code);
private:
  std::string name, path;
  bx_lockstep_pktmover_c *ports[LOCKSTEP_NET_MAX_PORTS] = {};
  std::string macs[LOCKSTEP_NET_MAX_PORTS];
  std::vector<lockstep_frame_t> sent;
  std::deque<lockstep_frame_t> due;
  Bit64u until = 0; // this host may run up to this tick, included
  int fd = -1;
  int timer = -1;
  bool over = false;

  static void timer_handler(void *this_ptr) { ((lockstep_session_c *)this_ptr)->fire(); }
  void fire(void);
  void open(void);
  void hello(Bit64u now);
  void meet(Bit64u now, Bit8u reason, int code);
  void wait_for_run(Bit64u now);
  void take_run(const std::string &body, Bit64u now);
  void take_end(const std::string &body);
  void write_message(Bit8u kind, const std::string &body);
  Bit8u read_message(std::string *body);
  void read_bytes(void *p, size_t n);
  [[noreturn]] void fail(int code, const char *fmt, ...);
};

static lockstep_session_c session;

class bx_lockstep_pktmover_c : public eth_pktmover_c {
public:
  bx_lockstep_pktmover_c(const char *netif, const char *macaddr, eth_rx_handler_t rxh,
                         eth_rx_status_t rxstat, logfunctions *netdev, const char *script);
  void sendpkt(void *buf, unsigned io_len);
  void rx_ready(void);
  void deliver(const std::string &frame);
  Bit64u delivered = 0; // frames handed to the card
  Bit64u held = 0;      // of these, frames that waited in the FIFO for a buffer
  Bit64u missed = 0;    // frames that the card had no room for
private:
  Bit8u number;
  std::deque<std::string> fifo;
  size_t fifo_bytes = 0;
  void hand_over(const std::string &frame);
};

class bx_lockstep_locator_c : public eth_locator_c {
public:
  bx_lockstep_locator_c(void) : eth_locator_c("lockstep") {}
protected:
  eth_pktmover_c *allocate(const char *netif, const char *macaddr,
                           eth_rx_handler_t rxh, eth_rx_status_t rxstat,
                           logfunctions *netdev, const char *script) {
    return (new bx_lockstep_pktmover_c(netif, macaddr, rxh, rxstat, netdev, script));
  }
} bx_lockstep_match;

//
// The port: one card's side
//

bx_lockstep_pktmover_c::bx_lockstep_pktmover_c(const char *netif, const char *macaddr,
    eth_rx_handler_t rxh, eth_rx_status_t rxstat, logfunctions *netdev, const char *script)
{
  UNUSED(script);
  this->netdev = netdev;
  this->rxh = rxh;
  this->rxstat = rxstat;
  session.join(netif, macaddr, this, &number);
  BX_INFO(("lock-step network, port %u", number));
}

void bx_lockstep_pktmover_c::sendpkt(void *buf, unsigned io_len)
{
  if (io_len < LOCKSTEP_NET_MIN_FRAME || io_len > LOCKSTEP_NET_MAX_FRAME) {
    BX_ERROR(("frame of %u bytes is not sent", io_len));
    return;
  }
  session.send(number, buf, io_len);
}

void bx_lockstep_pktmover_c::hand_over(const std::string &frame)
{
  // The card may strip a VLAN tag in place: give it a copy.
  std::string copy(frame);
  rxh(netdev, &copy[0], (unsigned)copy.size());
  delivered++;
}

// A frame has come down the wire at this very tick.
void bx_lockstep_pktmover_c::deliver(const std::string &frame)
{
  if (!(rxstat(netdev) & BX_NETDEV_RXFULL) && fifo.empty()) {
    hand_over(frame); // a card whose receiver is off drops it
    return;
  }
  if (fifo_bytes + frame.size() > LOCKSTEP_NET_FIFO_BYTES) {
    missed++;
    std::string copy(frame);
    rxh(netdev, &copy[0], (unsigned)copy.size()); // no buffer: the card counts and reports it
    return;
  }
  fifo.push_back(frame);
  fifo_bytes += frame.size();
  held++;
}

// The guest has changed the receive ring or switched the receiver.
void bx_lockstep_pktmover_c::rx_ready(void)
{
  while (!fifo.empty()) {
    Bit32u status = rxstat(netdev);
    if (status & BX_NETDEV_RXFULL) return;
    std::string frame = fifo.front();
    fifo.pop_front();
    fifo_bytes -= frame.size();
    if (status & BX_NETDEV_RXREADY) hand_over(frame); // else switched off: the FIFO is lost
  }
}

//
// The session: this host's side
//

void lockstep_session_c::fail(int code, const char *fmt, ...)
{
  va_list args;
  va_start(args, fmt);
  fprintf(stderr, "lockstep: network of host '%s': ", name.c_str());
  vfprintf(stderr, fmt, args);
  fprintf(stderr, "\n");
  va_end(args);
  over = true;
  lockstep_exit(code);
}

// Called for each card when the devices are made: "PORT", "HOST:PORT" or
// "HOST:PORT:PATH"; what is missing comes from LOCKSTEP_NET=HOST:PATH.
void lockstep_session_c::join(const char *ethdev, const char *mac, bx_lockstep_pktmover_c *port,
                              Bit8u *number)
{
  const char *env = getenv("LOCKSTEP_NET");
  const char *colon = env ? strchr(env, ':') : NULL;
  if (env && *env && !colon)
    fail(LOCKSTEP_EXIT_NET_REFUSED, "LOCKSTEP_NET=%s is not understood; want HOST:PATH", env);
  std::string host = colon ? std::string(env, colon - env) : "", socket = colon ? colon + 1 : "";
  std::string spec = ethdev, which = spec;
  size_t first = spec.find(':');
  if (first != std::string::npos) {
    size_t second = spec.find(':', first + 1);
    host = spec.substr(0, first);
    which = spec.substr(first + 1, second == std::string::npos ? second : second - first - 1);
    if (second != std::string::npos) socket = spec.substr(second + 1);
  }
  if (which.size() != 1 || which[0] < '0' || which[0] >= '0' + LOCKSTEP_NET_MAX_PORTS)
    fail(LOCKSTEP_EXIT_NET_REFUSED, "ethdev=%s is not understood; want PORT, HOST:PORT or HOST:PORT:PATH with a "
         "port from 0 to %d", ethdev, LOCKSTEP_NET_MAX_PORTS - 1);
  if (host.empty() || socket.empty())
    fail(LOCKSTEP_EXIT_NET_REFUSED, "no %s: set LOCKSTEP_NET=HOST:PATH, or ethdev=HOST:PORT:PATH",
         host.empty() ? "host name" : "path of the switch's socket");
  if ((!name.empty() && host != name) || (!path.empty() && socket != path))
    fail(LOCKSTEP_EXIT_NET_REFUSED, "its cards disagree: %s at %s and %s at %s; one process is one host",
         name.c_str(), path.c_str(), host.c_str(), socket.c_str());
  *number = (Bit8u)(which[0] - '0');
  if (ports[*number])
    fail(LOCKSTEP_EXIT_NET_REFUSED, "two cards with port %u: give each its own", *number);
  name = host;
  path = socket;
  ports[*number] = port;
  macs[*number] = std::string(mac, 6);
  if (timer < 0)
    timer = bx_pc_system.register_timer_ticks(this, timer_handler, 1, 0, 1, "lock-step network");
}

void lockstep_session_c::send(Bit8u port, const void *buf, unsigned len)
{
  lockstep_frame_t frame;
  frame.tick = bx_pc_system.time_ticks();
  // Within a trace the clock lags behind the instructions: add what it has not seen yet.
  if (BX_SMP_PROCESSORS == 1) frame.tick += BX_CPU(0)->icount - BX_CPU(0)->get_icount_last_sync();
  // The event at `until` fires at the end of the trace that passes it.
  if (frame.tick > until && fd >= 0) frame.tick = until;
  frame.port = port;
  frame.bytes.assign((const char *)buf, len);
  sent.push_back(frame);
}

void lockstep_session_c::fire(void)
{
  Bit64u now = bx_pc_system.time_ticks();
  if (fd < 0) {
    open();
    hello(now);
    wait_for_run(now);
  } else {
    while (!due.empty() && due.front().tick <= now) {
      lockstep_frame_t frame = due.front();
      due.pop_front();
      ports[frame.port]->deliver(frame.bytes);
    }
    if (now >= until) {
      meet(now, LOCKSTEP_NET_REACHED, 0);
      wait_for_run(now);
    }
  }
  Bit64u next = due.empty() ? until : due.front().tick;
  bx_pc_system.activate_timer_ticks(timer, next - now, 0);
}

#if defined(__GLIBC__)
static void leave_on_exit(int code, void *) { session.leave(code); }
#else
static void leave_on_exit(void) { session.leave(-1); }
#endif

void lockstep_session_c::open(void)
{
  struct sockaddr_un address;
  memset(&address, 0, sizeof(address));
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    fail(LOCKSTEP_EXIT_NET_REFUSED, "the path %s is longer than a socket's may be (%u bytes)", path.c_str(),
         (unsigned)sizeof(address.sun_path) - 1);
  memcpy(address.sun_path, path.c_str(), path.size());
  fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
    fail(LOCKSTEP_EXIT_NET_LOST, "cannot reach the switch at %s: %s; start it first (cargo xtask switch)",
         path.c_str(), strerror(errno));
#if defined(__GLIBC__)
  on_exit(leave_on_exit, NULL);
#else
  atexit(leave_on_exit);
#endif
}

void lockstep_session_c::hello(Bit64u now)
{
  lockstep_writer_c w;
  unsigned count = 0;
  w.put32(LOCKSTEP_NET_MAGIC);
  w.put16(LOCKSTEP_NET_VERSION);
  w.put64((Bit64u)SIM->get_param_num(BXPN_IPS)->get());
  w.put64(now);
  w.put8((Bit8u)name.size());
  w.bytes(name.data(), name.size());
  for (unsigned n = 0; n < LOCKSTEP_NET_MAX_PORTS; n++) count += ports[n] != NULL;
  w.put8((Bit8u)count);
  for (unsigned n = 0; n < LOCKSTEP_NET_MAX_PORTS; n++) {
    if (!ports[n]) continue;
    w.put8((Bit8u)n);
    w.bytes(macs[n].data(), 6);
  }
  write_message(LOCKSTEP_NET_HELLO, w.out);
  std::string body;
  Bit8u kind = read_message(&body);
  if (kind == LOCKSTEP_NET_END) take_end(body);
  if (kind != LOCKSTEP_NET_WELCOME || body.size() != 10)
    fail(LOCKSTEP_EXIT_NET_REFUSED, "the switch answered HELLO with kind %#x of %u bytes", kind,
         (unsigned)body.size());
}

void lockstep_session_c::meet(Bit64u now, Bit8u reason, int code)
{
  lockstep_writer_c w;
  unsigned count = 0;
  w.put64(now);
  w.put8(reason);
  w.put32((Bit32u)code);
  for (unsigned n = 0; n < LOCKSTEP_NET_MAX_PORTS; n++) count += ports[n] != NULL;
  w.put8((Bit8u)count);
  for (unsigned n = 0; n < LOCKSTEP_NET_MAX_PORTS; n++) {
    if (!ports[n]) continue;
    w.put8((Bit8u)n);
    w.put64(ports[n]->delivered);
    w.put64(ports[n]->held);
    w.put64(ports[n]->missed);
  }
  w.put32((Bit32u)sent.size());
  for (size_t n = 0; n < sent.size(); n++) w.frame(sent[n]);
  sent.clear();
  write_message(LOCKSTEP_NET_MEET, w.out);
}

void lockstep_session_c::wait_for_run(Bit64u now)
{
  std::string body;
  Bit8u kind = read_message(&body);
  if (kind == LOCKSTEP_NET_END) take_end(body);
  if (kind != LOCKSTEP_NET_RUN)
    fail(LOCKSTEP_EXIT_NET_REFUSED, "the switch sent kind %#x where RUN or END must come", kind);
  take_run(body, now);
}

static Bit64u get_le(const std::string &body, size_t at, unsigned n)
{
  Bit64u v = 0;
  while (n--) v = v << 8 | (Bit8u)body[at + n];
  return v;
}

void lockstep_session_c::take_run(const std::string &body, Bit64u now)
{
  size_t at = 12;
  if (body.size() < at) fail(LOCKSTEP_EXIT_NET_REFUSED, "RUN is cut short: %u bytes", (unsigned)body.size());
  until = get_le(body, 0, 8);
  Bit32u count = (Bit32u)get_le(body, 8, 4);
  if (until <= now)
    fail(LOCKSTEP_EXIT_NET_REFUSED, "RUN up to tick " FMT_LL "u, but it is " FMT_LL "u already", until, now);
  Bit64u last = now + 1;
  for (Bit32u n = 0; n < count; n++) {
    if (body.size() - at < 11) fail(LOCKSTEP_EXIT_NET_REFUSED, "RUN is cut short in frame %u of %u", n, count);
    lockstep_frame_t frame;
    frame.tick = get_le(body, at, 8);
    frame.port = (Bit8u)body[at + 8];
    size_t len = (size_t)get_le(body, at + 9, 2);
    at += 11;
    if (body.size() - at < len) fail(LOCKSTEP_EXIT_NET_REFUSED, "RUN is cut short in frame %u of %u", n, count);
    if (frame.tick < last || frame.tick > until)
      fail(LOCKSTEP_EXIT_NET_REFUSED, "frame %u is due at tick " FMT_LL "u, not in " FMT_LL "u to " FMT_LL "u",
           n, frame.tick, last, until);
    if (frame.port >= LOCKSTEP_NET_MAX_PORTS || !ports[frame.port])
      fail(LOCKSTEP_EXIT_NET_REFUSED, "frame %u is for port %u, which is not here", n, frame.port);
    frame.bytes = body.substr(at, len);
    at += len;
    last = frame.tick;
    due.push_back(frame);
  }
  if (at != body.size())
    fail(LOCKSTEP_EXIT_NET_REFUSED, "RUN has %u bytes too many", (unsigned)(body.size() - at));
}

void lockstep_session_c::take_end(const std::string &body)
{
  Bit8u reason = body.empty() ? 0 : (Bit8u)body[0];
  std::string text = body.empty() ? "" : body.substr(1);
  if (reason == LOCKSTEP_NET_KILLED) fail(LOCKSTEP_EXIT_NET_KILLED, "killed by the switch: %s", text.c_str());
  if (reason == LOCKSTEP_NET_OVER) fail(LOCKSTEP_EXIT_NET_OVER, "the scenario is over: %s", text.c_str());
  fail(LOCKSTEP_EXIT_NET_REFUSED, "refused by the switch: %s", text.c_str());
}

// The process ends: hand over what was sent, so that last words get out.
void lockstep_session_c::leave(int code)
{
  if (over || fd < 0) return;
  over = true;
  Bit64u now = bx_pc_system.time_ticks();
  meet(now < until ? now : until, LOCKSTEP_NET_LEAVING, code);
  close(fd);
}

void lockstep_session_c::write_message(Bit8u kind, const std::string &body)
{
  lockstep_writer_c w;
  w.put32((Bit32u)body.size() + 1);
  w.put8(kind);
  w.out += body;
  const char *p = w.out.data();
  size_t left = w.out.size();
  while (left > 0) {
    ssize_t n = ::send(fd, p, left, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      if (over) return; // leaving: nobody is there to hear it
      fail(LOCKSTEP_EXIT_NET_LOST, "the switch went away: %s", strerror(errno));
    }
    p += n;
    left -= n;
  }
}

Bit8u lockstep_session_c::read_message(std::string *body)
{
  Bit8u head[5];
  read_bytes(head, 5);
  Bit32u len = head[0] | head[1] << 8 | head[2] << 16 | (Bit32u)head[3] << 24;
  if (len < 1 || len > LOCKSTEP_NET_MAX_MESSAGE)
    fail(LOCKSTEP_EXIT_NET_REFUSED, "a message of %u bytes: the stream is broken", len);
  body->resize(len - 1);
  if (len > 1) read_bytes(&(*body)[0], len - 1);
  return head[4];
}

void lockstep_session_c::read_bytes(void *p, size_t n)
{
  Bit8u *to = (Bit8u *)p;
  while (n > 0) {
    ssize_t got = recv(fd, to, n, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      fail(LOCKSTEP_EXIT_NET_LOST, "the switch went away: %s", got ? strerror(errno) : "it closed the connection");
    to += got;
    n -= got;
  }
}

#endif /* if BX_NETWORKING */
