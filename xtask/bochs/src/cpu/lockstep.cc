/////////////////////////////////////////////////////////////////////////
// Lockstep: the LOCKSTEP_* knobs of the emulated machine, exit with a code
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

#include "bochs.h"
#include "cpu.h"
#include "pc_system.h"
#include "gui/siminterface.h"
#include "lockstep.h"
#include <stdlib.h>
#include <errno.h>

static void bad_knob(const char *name, const char *value, const char *want)
{
  fprintf(stderr, "lockstep: %s=%s is not understood; want %s\n", name, value, want);
  exit(2);
}

// One number of a colon-separated list; advances *p past it and its colon.
static Bit64u number(const char *name, const char *value, const char **p, const char *want)
{
  char *end;
  errno = 0;
  if (**p < '0' || **p > '9') bad_knob(name, value, want);
  Bit64u n = strtoull(*p, &end, 0);
  if (errno || (*end != ':' && *end != 0 && *end != ',')) bad_knob(name, value, want);
  *p = end;
  return n;
}

static bool colon(const char **p)
{
  if (**p != ':') return false;
  (*p)++;
  return true;
}

static void read_seed(lockstep_knobs_t *k)
{
  const char *want = "a 64-bit number";
  const char *s = getenv("LOCKSTEP_SEED");
  if (! s || ! *s) return;
  const char *p = s;
  k->seed = number("LOCKSTEP_SEED", s, &p, want);
  if (*p) bad_knob("LOCKSTEP_SEED", s, want);
}

static void read_skid(lockstep_knobs_t *k)
{
  const char *want = "min:max:seed in instructions, min <= max <= 100000";
  const char *s = getenv("LOCKSTEP_SKID");
  if (! s || ! *s) return;
  const char *p = s;
  Bit64u lo = number("LOCKSTEP_SKID", s, &p, want), hi = lo;
  if (colon(&p)) hi = number("LOCKSTEP_SKID", s, &p, want);
  if (colon(&p)) k->skid_seed = number("LOCKSTEP_SKID", s, &p, want);
  if (*p || lo > hi || hi > 100000) bad_knob("LOCKSTEP_SKID", s, want);
  k->skid_min = (Bit32u) lo;
  k->skid_max = (Bit32u) hi;
}

const lockstep_knobs_t *lockstep_knobs(void)
{
  static lockstep_knobs_t knobs;
  static bool read = false;
  if (! read) {
    read = true;
    memset(&knobs, 0, sizeof(knobs));
    read_seed(&knobs);
    read_skid(&knobs);
  }
  return &knobs;
}

static bool reported = false;

void lockstep_report(int code)
{
  if (reported) return;
  reported = true;
  if (code < 0) fprintf(stderr, "lockstep: exit code=- ticks=" FMT_LL "u\n", bx_pc_system.time_ticks());
  else fprintf(stderr, "lockstep: exit code=%d ticks=" FMT_LL "u\n", code, bx_pc_system.time_ticks());
}

void lockstep_exit(int code)
{
  lockstep_report(code);
  bx_user_quit = 1;
  bx_atexit();
  fflush(NULL);
  exit(code);
}
