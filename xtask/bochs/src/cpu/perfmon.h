/////////////////////////////////////////////////////////////////////////
// Lockstep: performance counters: the state of one CPU
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
#ifndef BX_PERFMON_H
#define BX_PERFMON_H

#include "lockstep.h"

#define BX_PMU_MAX_GP    8
#define BX_PMU_MAX_FIXED 3

const Bit64u BX_PMU_NEVER = BX_CONST64(0xFFFFFFFFFFFFFFFF);

// What a counter can add up. The first six are the classes of retired branch.
enum {
  BX_PMU_TAKEN,       // conditional, taken (Jcc, LOOPcc, JrCXZ)
  BX_PMU_NOT_TAKEN,   // conditional, not taken
  BX_PMU_JUMP,        // near JMP, direct and indirect
  BX_PMU_CALL,        // near CALL
  BX_PMU_RETURN,      // near RET
  BX_PMU_FAR,         // far JMP/CALL/RET, IRET, INT n, SYSCALL and its kin
  BX_PMU_BRANCHES,    // number of branch classes
  BX_PMU_INSTRUCTIONS = BX_PMU_BRANCHES,
  BX_PMU_CYCLES,
  BX_PMU_SOURCES
};

struct bx_perfmon_t {
  // --- the hot part: what the instruction loop touches ---

  // retired instructions = icount - excess. Bochs bumps icount for every
  // committed instruction, every REP iteration, every fault and every fault-like
  // VM exit; all but the first bump excess too.
  Bit64u excess;
  Bit64u deadline;    // icount at which cpu_loop has to call perfmon_boundary()
  Bit64u branches[BX_PMU_BRANCHES];

  bool   in_rep;      // inside repeat(): icount since rep_start are iterations
  bool   current;     // the instruction being executed (WRMSR) retires
  Bit64u rep_start, rep_rip;

  // --- architectural state ---
  Bit64u pmc[BX_PMU_MAX_GP], evtsel[BX_PMU_MAX_GP];
  Bit64u fixed[BX_PMU_MAX_FIXED];
  Bit64u fixed_ctrl, global_ctrl, global_status, debugctl, misc_enable;

  // --- bookkeeping ---
  Bit64u seen[BX_PMU_SOURCES];  // totals up to which the counters are up to date
  Bit64u pmi_due;               // retired count at which the pending PMI is delivered
  Bit64u speculation_due;       // icount of the next speculative walk or eviction
  Bit64u deliveries;            // events delivered through the IDT
  bool   active;                // some counter is enabled (whatever GLOBAL_CTRL says)
  bool   smm_frozen;            // FREEZE_WHILE_SMM was set when SMM was entered

  // --- injected faults ---
  Bit64u rep_split_rip;         // RIP of a REP that was interrupted (undercount-rep)
  Bit64u exits, pmis;           // VM exits and PMIs so far (overcount, lost-pmi)
  lockstep_rng_t skid_rng, speculation_rng;

  // An instruction, or a REP, was left without retiring: fault, VM exit.
  // Called just before or after Bochs's own icount++ for it.
  void abandon(Bit64u icount) {
    if (in_rep) leave_rep(icount);
    excess++;
    current = false;
  }
  // Move iterations of the current REP from retired to excess.
  void settle_rep(Bit64u icount) { excess += icount - rep_start; rep_start = icount; }
  void leave_rep(Bit64u icount);
};

// Bochs reports every branch at the point where it is certain to retire, just
// before the commit; counting there is one increment per branch.
#undef BX_INSTR_CNEAR_BRANCH_TAKEN
#undef BX_INSTR_CNEAR_BRANCH_NOT_TAKEN
#undef BX_INSTR_UCNEAR_BRANCH
#undef BX_INSTR_FAR_BRANCH
#define BX_INSTR_CNEAR_BRANCH_TAKEN(cpu_id, branch_eip, new_eip) \
  (BX_CPU_THIS_PTR perfmon.branches[BX_PMU_TAKEN]++)
#define BX_INSTR_CNEAR_BRANCH_NOT_TAKEN(cpu_id, branch_eip) \
  (BX_CPU_THIS_PTR perfmon.branches[BX_PMU_NOT_TAKEN]++)
#define BX_INSTR_UCNEAR_BRANCH(cpu_id, what, branch_eip, new_eip) \
  (BX_CPU_THIS_PTR perfmon.branches[ \
    ((what) == BX_INSTR_IS_RET) ? BX_PMU_RETURN : \
    ((what) == BX_INSTR_IS_CALL || (what) == BX_INSTR_IS_CALL_INDIRECT) ? BX_PMU_CALL : BX_PMU_JUMP]++)
#define BX_INSTR_FAR_BRANCH(cpu_id, what, prev_cs, prev_eip, new_cs, new_eip) \
  (BX_CPU_THIS_PTR perfmon.branches[BX_PMU_FAR]++)

#endif
