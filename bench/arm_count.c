/* Counts what an aarch64 program executes, exactly: a plugin of QEMU (user mode, plugin API version 1, QEMU 4.2 and
 * later).
 *
 *   cc -shared -fPIC -O2 -o arm_count.so bench/arm_count.c
 *   qemu-aarch64 -plugin ./arm_count.so -d plugin program
 *
 * The program marks the work to be counted with the system call getpriority(0, 1397440817): at each, the plugin prints
 * and clears the counts: all instructions, floating-point multiply-adds (FMLA, FMLS, FMADD and their kin, vector or
 * scalar), and loads and stores. One thread at a time, please: the counters are not atomic.
 *
 * Debian has no package with qemu-plugin.h, so what is used of the interface, as QEMU documents it, is declared here.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*qemu_plugin_vcpu_tb_trans_cb_t)(qemu_plugin_id_t id, struct qemu_plugin_tb* tb);
typedef void (*qemu_plugin_vcpu_syscall_cb_t)(qemu_plugin_id_t id, unsigned int vcpu_index, int64_t num, uint64_t a1,
                                              uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6,
                                              uint64_t a7, uint64_t a8);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_tb_trans_cb_t cb);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_syscall_cb_t cb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb* tb, enum qemu_plugin_op op, void* ptr,
                                              uint64_t imm);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* tb);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* tb, size_t index);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn* insn);

EXPORT int qemu_plugin_version = 1;

static uint64_t instructions, multiply_adds, memory;

static bool is_multiply_add(uint32_t code) {
  return (code & 0xbfa0fc00) == 0x0e20cc00     /* FMLA, vector */
         || (code & 0xbfa0fc00) == 0x0ea0cc00  /* FMLS, vector */
         || (code & 0xbf80b400) == 0x0f801000  /* FMLA and FMLS, by element */
         || (code & 0xbf40fc00) == 0x0e400c00  /* the same of half precision */
         || (code & 0xbfc0b400) == 0x0f001000  /* */
         || (code & 0xff000000) == 0x1f000000; /* FMADD, FMSUB, FNMADD, FNMSUB */
}

static bool is_memory(uint32_t code) { return (code & 0x0a000000) == 0x08000000; } /* loads and stores */

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb* tb) {
  (void)id;
  const size_t count = qemu_plugin_tb_n_insns(tb);
  uint64_t fma = 0, mem = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t code = *(const uint32_t*)qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i));
    fma += is_multiply_add(code);
    mem += is_memory(code);
  }
  qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &instructions, count);
  if (fma) qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &multiply_adds, fma);
  if (mem) qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &memory, mem);
}

static void system_call(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)vcpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  enum { kGetPriority = 141, kMark = 1397440817 };
  if (number != kGetPriority || a1 != 0 || a2 != kMark) return;
  fprintf(stderr, "executed %" PRIu64 " multiply-adds %" PRIu64 " memory %" PRIu64 "\n", instructions, multiply_adds,
          memory);
  fflush(stderr);
  instructions = multiply_adds = memory = 0;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc, char** argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_vcpu_syscall_cb(id, system_call);
  return 0;
}
