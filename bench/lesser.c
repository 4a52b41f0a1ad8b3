/* Hides instruction sets of the CPU from a program by changing the answers of CPUID.
 *
 * Loaded with LD_PRELOAD, it makes CPUID fault, handles the fault, and clears the bits of the sets
 * in FEATUREWIRE_BENCH_WITHOUT. The bits are Intel's, in leaf 7.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012

static const struct {
  const char *set;
  int subleaf;
  uint32_t eax, ebx, ecx, edx;
} SETS[] = {
    {"avx512", 0, 0, 0xd0230000, 0x5842, 0x80010c},
    {"avx512", 1, 0x20, 0, 0, 0},
    {"bf16", 1, 0x20, 0, 0, 0},
    {"fp16", 0, 0, 0, 0, 0x800000},
    {"avx_vnni", 1, 0x800010, 0, 0, 0x430},
    {"amx", 0, 0, 0, 0, 0x3400000},
    {"amx", 1, 0x200000, 0, 0, 0x100},
};
static const char *without;

static int let_cpuid_run(int allowed) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void answer(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *code = (const unsigned char *)registers[REG_RIP];
  if (info->si_code != SI_KERNEL || code[0] != 0x0f || code[1] != 0xa2) {
    signal(SIGSEGV, SIG_DFL); /* not from CPUID: the fault repeats and ends the program */
    return;
  }
  uint32_t leaf = registers[REG_RAX], subleaf = registers[REG_RCX], eax, ebx, ecx, edx;
  let_cpuid_run(1);
  __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
  let_cpuid_run(0);
  for (unsigned i = 0; leaf == 7 && i < sizeof SETS / sizeof *SETS; i++)
    if (SETS[i].subleaf == (int)subleaf && strstr(without, SETS[i].set)) {
      eax &= ~SETS[i].eax;
      ebx &= ~SETS[i].ebx;
      ecx &= ~SETS[i].ecx;
      edx &= ~SETS[i].edx;
    }
  registers[REG_RAX] = eax;
  registers[REG_RBX] = ebx;
  registers[REG_RCX] = ecx;
  registers[REG_RDX] = edx;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
  struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
  if (!(without = getenv("FEATUREWIRE_BENCH_WITHOUT"))) return;
  sigaction(SIGSEGV, &action, NULL);
  if (let_cpuid_run(0)) abort(); /* do not measure the unrestricted CPU */
}
