/////////////////////////////////////////////////////////////////////////
// Lockstep: what page walks may do under EPT; speculative walks and TLB evictions
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
//
// Silicon walks the page tables speculatively and sets accessed bits while it
// does; it evicts translations when it likes. Bochs does neither by itself. With
// LOCKSTEP_TLB both happen here, drawn from a seed, at instruction boundaries. A
// speculative walk never faults, never exits, never sets a dirty bit and counts
// nothing; where EPT does not let it write a paging structure it sets nothing.

#define NEED_CPU_REG_SHORTCUTS 1
#include "bochs.h"
#include "cpu.h"
#define LOG_THIS BX_CPU_THIS_PTR

#include "memory/memory-bochs.h"
#include "pc_system.h"

#define PM (BX_CPU_THIS_PTR perfmon)

#define FRAME_MASK  BX_CONST64(0x000ffffffffff000)
#ifndef BX_PAGING_PHY_ADDRESS_RESERVED_BITS   // as in paging.cc
#define BX_PAGING_PHY_ADDRESS_RESERVED_BITS (BX_PHY_ADDRESS_RESERVED_BITS & BX_CONST64(0xfffffffffffff))
#endif
#define PRESENT     0x01
#define USER        0x04
#define ACCESSED    0x20
#define DIRTY       0x40
#define LARGE       0x80
#define NO_EXECUTE  (BX_CONST64(1) << 63)
#define EPT_AD_ENABLED (BX_CPU_THIS_PTR vmcs.eptptr & 0x40)

static inline bool ept_on(const BX_CPU_C *cpu)
{
  return cpu->in_vmx_guest && cpu->vmcs.vmexec_ctrls2.EPT_ENABLE();
}

// Called when a walk has found its leaf, before it sets bits. Setting an accessed
// or dirty bit is a write to the paging structure, so EPT must allow it: SDM vol.
// 3C, 30.3.3.2 and table 29-7 (qualification: write, linear address valid, bit 8
// clear). With EPT's own A/D flags on every access of the walk was checked as a
// write already. 'table' is the guest-physical address of the top structure.
void BX_CPU_C::ept_check_accessed_dirty(bx_address laddr, bx_phy_address table, const Bit64u *entry,
    int top, int leaf, bool wide, unsigned write, Bit32u access)
{
  if (! ept_on(BX_CPU(BX_CPU_ID)) || EPT_AD_ENABLED) return;
  for (int level = top; level >= leaf; level--) {
    bool set = ! (entry[level] & ACCESSED) || (level == leaf && write && ! (entry[level] & DIRTY));
    if (set) {
      bx_phy_address gpa = table + (wide ? (laddr >> (9 + 9*level)) & 0xff8 : (laddr >> (10 + 10*level)) & 0xffc);
      translate_guest_physical(gpa, laddr, true /* laddr_valid */, true /* page walk */,
        (access & 4) != 0, (access & 2) != 0, false, BX_WRITE);
    }
    table = wide ? entry[level] & FRAME_MASK : entry[level] & 0xfffff000;
  }
}

//
// When and what
//

Bit64u BX_CPU_C::speculation_interval(void)
{
  const lockstep_knobs_t *k = lockstep_knobs();
  Bit32u rate = k->tlb_walks + k->tlb_evictions;
  if (! rate) return BX_PMU_NEVER - BX_CPU_THIS_PTR icount;
  return 1 + PM.speculation_rng.below(2 * 1000000 / rate);
}

void BX_CPU_C::speculate(void)
{
  const lockstep_knobs_t *k = lockstep_knobs();
  PM.speculation_due = BX_CPU_THIS_PTR icount + speculation_interval();
  if (PM.speculation_rng.below(k->tlb_walks + k->tlb_evictions) < k->tlb_walks) speculative_walk();
  else speculative_eviction();
}

// A valid entry at or after a random place, or NULL.
template <unsigned size> static bx_TLB_entry *random_entry(TLB<size> *tlb, lockstep_rng_t *rng)
{
  unsigned start = (unsigned) rng->below(size);
  for (unsigned n = 0; n < size; n++) {
    bx_TLB_entry *e = &tlb->entry[(start + n) % size];
    if (e->valid()) return e;
  }
  return NULL;
}

void BX_CPU_C::speculative_eviction(void)
{
  if (PM.speculation_rng.below(4)) {
    bx_TLB_entry *e = random_entry(&BX_CPU_THIS_PTR DTLB, &PM.speculation_rng);
    if (e) e->invalidate();
    invalidate_stack_cache();
  }
  else {
    bx_TLB_entry *e = random_entry(&BX_CPU_THIS_PTR ITLB, &PM.speculation_rng);
    if (e) e->invalidate();
    invalidate_prefetch_q();
  }
}

// Where a core would look: at what registers point to, next to what was touched,
// at the other pages of the same page table, ahead of RIP, around RSP.
static bx_address guess(lockstep_rng_t *rng, Bit64u reg, Bit64u rip, Bit64u rsp, bx_address touched)
{
  Bit64s near = (Bit64s)(rng->below(5)) - 2;
  switch(rng->below(8)) {
    case 0: case 1: case 2: return reg + (near << 6);
    case 3: case 4: return touched + (near << 12);
    case 5: return rip + ((1 + rng->below(4)) << 12);
    case 6: return rsp + (near << 12);
    default: return (touched & ~BX_CONST64(0x1ff000)) | (rng->below(512) << 12);
  }
}

void BX_CPU_C::speculative_walk(void)
{
  if (! BX_CPU_THIS_PTR cr0.get_PG()) return;
  lockstep_rng_t *rng = &PM.speculation_rng;
  bx_TLB_entry *e = random_entry(&BX_CPU_THIS_PTR DTLB, rng);
  Bit64u reg = BX_READ_64BIT_REG((unsigned) rng->below(16));
  bx_address laddr = guess(rng, reg, get_laddr(BX_SEG_REG_CS, RIP), get_laddr(BX_SEG_REG_SS, RSP),
                           e ? LPFOf(e->lpf) : RIP);
  if (! long_mode()) laddr &= 0xffffffff;
  else if (! IsCanonical(laddr)) return;
  if (! speculation_may_walk(laddr)) return;
  // nothing can go wrong now: let the stock walk set the bits and fill the TLB
  translate_linear(BX_DTLB_ENTRY_OF(laddr, 0), laddr, USER_PL, BX_READ);
}

//
// Would a read of laddr walk through without a fault or a VM exit?
//

static bool read_ram(BX_CPU_C *cpu, bx_phy_address paddr, bool wide, bool write, Bit64u *val)
{
  bx_hostpageaddr_t page = cpu->getHostMemAddr(PPFOf(paddr), BX_READ);
  if (! page || (write && ! cpu->getHostMemAddr(PPFOf(paddr), BX_WRITE))) return false;
  const Bit8u *p = (const Bit8u *)(page | PAGE_OFFSET(paddr));
  *val = wide ? ReadHostQWordFromLittleEndian((Bit64u *) p) : ReadHostDWordFromLittleEndian((Bit32u *) p);
  return true;
}

// A quiet EPT walk; false where the real one would exit.
bool BX_CPU_C::speculation_translate(bx_phy_address *paddr, bool is_page_walk, bool write)
{
  if (! ept_on(BX_CPU(BX_CPU_ID))) return true;
  if (EPT_AD_ENABLED && is_page_walk) write = true;
  bx_phy_address table = LPFOf(BX_CPU_THIS_PTR vmcs.eptptr);
  Bit64u access = 7;
  for (int level = 3; ; level--) {
    Bit64u e;
    if (! read_ram(BX_CPU(BX_CPU_ID), table + ((*paddr >> (9 + 9*level)) & 0xff8), true, true, &e)) return false;
    access &= e;
    if (! (e & 1) || (e & BX_PAGING_PHY_ADDRESS_RESERVED_BITS)) return false;
    bool leaf = (level == 0) || (e & LARGE);
    if (! leaf) {
      if (e & 0x78) return false;
      table = e & FRAME_MASK;
      continue;
    }
    unsigned memtype = (unsigned)(e >> 3) & 7;
    if (memtype == 2 || memtype == 3 || memtype == 7 || level > 2) return false;
    Bit64u offset = (BX_CONST64(1) << (12 + 9*level)) - 1;
    if ((e & FRAME_MASK) & offset) return false;
    *paddr = (e & FRAME_MASK) | (*paddr & offset);
    return ! (write && ! (access & 2));
  }
}

bool BX_CPU_C::speculation_may_walk(bx_address laddr)
{
  if (BX_CPU_THIS_PTR in_svm_guest) return false;
  // protection keys, LASS and shadow stacks are left alone
  if (BX_CPU_THIS_PTR cr4.get_PKE() || BX_CPU_THIS_PTR cr4.get_PKS() || BX_CPU_THIS_PTR cr4.get_LASS() ||
      BX_CPU_THIS_PTR cr4.get_CET()) return false;
  // logging dirty pages could fill the log and exit
  if (ept_on(BX_CPU(BX_CPU_ID)) && BX_CPU_THIS_PTR vmcs.vmexec_ctrls2.PML_ENABLE()) return false;

  const bool wide = long_mode() || BX_CPU_THIS_PTR cr4.get_PAE();
  const unsigned bits = wide ? 9 : 10;
  bx_phy_address table;
  int level;
  if (long_mode()) {
    table = BX_CPU_THIS_PTR cr3 & FRAME_MASK;
    level = BX_CPU_THIS_PTR cr4.get_LA57() ? 4 : 3;
  }
  else {
    level = 1;
    table = BX_CPU_THIS_PTR cr3 & 0xfffff000;
    if (wide) {
      Bit64u pdpte = BX_CPU_THIS_PTR PDPTR_CACHE.entry[(laddr >> 30) & 3];
      if (! (pdpte & PRESENT)) return false;
      table = pdpte & FRAME_MASK;
    }
  }

  Bit64u access = USER;
  for (; ; level--) {
    bx_phy_address gpa = table + (wide ? (laddr >> (9 + 9*level)) & 0xff8 : (laddr >> (10 + 10*level)) & 0xffc);
    bx_phy_address hpa = gpa;
    Bit64u e;
    if (! speculation_translate(&hpa, true, false) || ! read_ram(BX_CPU(BX_CPU_ID), A20ADDR(hpa), wide, false, &e))
      return false;
    if (! (e & PRESENT)) return false;
    if (wide && ((e & BX_PAGING_PHY_ADDRESS_RESERVED_BITS) ||
                 ((e & NO_EXECUTE) && ! BX_CPU_THIS_PTR efer.get_NXE()))) return false;
    if (! (e & ACCESSED)) {
      hpa = gpa;
      if (! speculation_translate(&hpa, true, true) || ! read_ram(BX_CPU(BX_CPU_ID), A20ADDR(hpa), wide, true, &e))
        return false;
    }
    access &= e;
    bool large = level > 0 && (e & LARGE) && (wide || BX_CPU_THIS_PTR cr4.get_PSE());
    if (large && ! wide && (e & 0x003fe000)) return false;      // PSE-36
    if (large && level > 2) return false;
    if (large && level == 2 && (! long_mode() || ! is_cpu_extension_supported(BX_ISA_1G_PAGES))) return false;
    bx_phy_address frame = wide ? e & FRAME_MASK : e & 0xfffff000;
    if (level > 0 && ! large) { table = frame; continue; }

    Bit64u offset = (BX_CONST64(1) << (12 + bits*level)) - 1;
    if (large) {
      if (wide && (frame & offset & ~BX_CONST64(0x1fff))) return false;
      frame &= ~offset;
    }
    if (USER_PL ? ! (access & USER) : (access & USER) && BX_CPU_THIS_PTR cr4.get_SMAP()) return false;
    hpa = frame | (laddr & offset);
    return speculation_translate(&hpa, false, false) && BX_CPU_THIS_PTR getHostMemAddr(PPFOf(A20ADDR(hpa)), BX_READ);
  }
}
