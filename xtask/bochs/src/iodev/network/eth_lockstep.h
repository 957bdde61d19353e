/////////////////////////////////////////////////////////////////////////
// Lockstep: the lock-step network, wire constants (docs/switch.md)
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
#ifndef BX_ETH_LOCKSTEP_H
#define BX_ETH_LOCKSTEP_H

// Version of the byte protocol; both sides must have the same.
#define LOCKSTEP_NET_VERSION 1
// First bytes of a HELLO: "LKSN".
#define LOCKSTEP_NET_MAGIC 0x4e534b4c
// Longest message in bytes; a longer one is a broken stream.
#define LOCKSTEP_NET_MAX_MESSAGE (64 * 1024 * 1024)
// Frames that a card may send and receive, in bytes, without FCS.
#define LOCKSTEP_NET_MIN_FRAME 14
#define LOCKSTEP_NET_MAX_FRAME 16384
// Cards per host.
#define LOCKSTEP_NET_MAX_PORTS 8
// What a card's receive FIFO holds while its ring is full, in bytes: the
// 82540EM's default of PBA, 48 KiB.
#define LOCKSTEP_NET_FIFO_BYTES (48 * 1024)

// Kinds of messages.
enum {
  LOCKSTEP_NET_HELLO   = 0x01, // host: who I am, what cards I have
  LOCKSTEP_NET_MEET    = 0x02, // host: I have come to this tick, these are my frames
  LOCKSTEP_NET_WELCOME = 0x81, // switch: you are joined
  LOCKSTEP_NET_RUN     = 0x82, // switch: run up to this tick, with these deliveries
  LOCKSTEP_NET_END     = 0x83  // switch: end now
};

// Why a host meets.
enum { LOCKSTEP_NET_REACHED = 0, LOCKSTEP_NET_LEAVING = 1 };
// Why the switch ends a host.
enum { LOCKSTEP_NET_KILLED = 1, LOCKSTEP_NET_OVER = 2, LOCKSTEP_NET_REFUSED = 3 };

// Process exit codes. All even: the exit port gives odd ones, and Bochs itself
// only 0 and 1.
#define LOCKSTEP_EXIT_NET_KILLED   40 // the switch killed this host
#define LOCKSTEP_EXIT_NET_LOST     42 // the switch went away
#define LOCKSTEP_EXIT_NET_REFUSED  44 // not joined, or the protocol was violated
#define LOCKSTEP_EXIT_NET_OVER     46 // the scenario is over

#endif
