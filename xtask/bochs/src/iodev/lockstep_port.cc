/////////////////////////////////////////////////////////////////////////
// Lockstep: exit port 0xF4, as QEMU's isa-debug-exit,iobase=0xf4,iosize=4
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
// Writing v to ports F4..F7 ends the emulator with the process exit code
// (v << 1) | 1; reading gives 0.

#include "iodev.h"
#include "cpu/lockstep.h"

#define LOCKSTEP_EXIT_PORT 0xf4

static Bit32u exit_port_read(void *this_ptr, Bit32u address, unsigned io_len)
{
  return 0;
}

static void exit_port_write(void *this_ptr, Bit32u address, Bit32u value, unsigned io_len)
{
  lockstep_exit((int)((value << 1) | 1) & 0xff);
}

void lockstep_init_ports(void)
{
  for (unsigned n = 0; n < 4; n++) {
    bx_devices.register_io_read_handler(NULL, exit_port_read, LOCKSTEP_EXIT_PORT + n, "Lockstep exit port", 7);
    bx_devices.register_io_write_handler(NULL, exit_port_write, LOCKSTEP_EXIT_PORT + n, "Lockstep exit port", 7);
  }
}
