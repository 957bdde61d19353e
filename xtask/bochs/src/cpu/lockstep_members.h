/////////////////////////////////////////////////////////////////////////
// Lockstep: what our files add to class BX_CPU_C (included inside the class)
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
// Performance counters (perfmon.cc). 'current' = 1 when the instruction being
// executed retires and belongs to the side whose configuration is in force.
bx_perfmon_t perfmon;

// the instruction loop has to look: an overflow, a PMI or a speculation is near
#define PERFMON_NEAR __builtin_expect(BX_CPU_THIS_PTR icount >= BX_CPU_THIS_PTR perfmon.deadline, 0)

BX_SMF void   perfmon_reset(void);
BX_SMF void   perfmon_sync(unsigned current);
BX_SMF void   perfmon_set_deadline(void);
BX_SMF void   perfmon_boundary(void);
BX_SMF bool   perfmon_is_msr(Bit32u index);
BX_SMF bool   perfmon_rdmsr(Bit32u index, Bit64u *val);
BX_SMF bool   perfmon_wrmsr(Bit32u index, Bit64u val);
BX_SMF bool   perfmon_rdpmc(Bit32u ecx, Bit64u *val);
BX_SMF void   perfmon_smm(bool enter);
BX_SMF void   perfmon_cpl_change(bool user) {
  if (BX_CPU_THIS_PTR perfmon.active) perfmon_sync(0);    // what ran until now
  BX_CPU_THIS_PTR user_pl = user;
  if (BX_CPU_THIS_PTR perfmon.active) perfmon_set_deadline();
}

// VM entry and exit (perfmon.cc)
BX_SMF Bit64u perfmon_global_mask(void);
BX_SMF bool   perfmon_valid_debugctl(Bit64u val);
BX_SMF void   perfmon_vmenter(const Bit64u *debugctl, const Bit64u *global_ctrl);
BX_SMF void   perfmon_vmexit_save(void);
BX_SMF void   perfmon_vmexit_load(const Bit64u *global_ctrl);

// String instructions go through this; the stock loop is repeat_iterations() (perfmon.cc)
BX_SMF void   repeat_iterations(bxInstruction_c *i, BxRepIterationPtr_tR execute) BX_CPP_AttrRegparmN(2);
BX_SMF void   repeat_ZF_iterations(bxInstruction_c *i, BxRepIterationPtr_tR execute) BX_CPP_AttrRegparmN(2);

// EPT write permission of a walk that sets accessed or dirty bits; speculative
// walks and TLB evictions (speculation.cc)
BX_SMF void   ept_check_accessed_dirty(bx_address laddr, bx_phy_address table, const Bit64u *entry,
                int top, int leaf, bool wide, unsigned write, Bit32u access);
BX_SMF Bit64u speculation_interval(void);
BX_SMF void   speculate(void);
BX_SMF void   speculative_walk(void);
BX_SMF void   speculative_eviction(void);
BX_SMF bool   speculation_may_walk(bx_address laddr);
BX_SMF bool   speculation_translate(bx_phy_address *paddr, bool is_page_walk, bool write);
