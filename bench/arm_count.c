/* Counts what an aarch64 program executes, exactly: a plugin of QEMU (user mode, plugin API version 1, QEMU 4.2 and
 * later).
 *
 *   cc -shared -fPIC -O2 -o arm_count.so bench/arm_count.c
 *   qemu-aarch64 -plugin ./arm_count.so,blocks=FILE -d plugin program
 *
 * The program marks the work to be counted with the system calls getpriority(0, 1397440817) before and getpriority(0,
 * 1397440818) after it: the plugin counts from nothing at the first and prints at the second: all instructions,
 * floating-point multiply-adds (FMLA, FMLS, FMADD and their kin, vector or scalar), and loads and stores. With
 * `blocks`, FILE gets the line "region", and then of each block of code that was executed its address, its instructions
 * and how often. One thread at a time, please: the counters are not atomic.
 *
 * Debian has no package with qemu-plugin.h, so what is used of the interface, as QEMU documents it, is declared here.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb* tb);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* tb);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* tb, size_t index);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn* insn);

EXPORT int qemu_plugin_version = 1;

/* A translation block: straight code, entered at its start. QEMU may translate the same code again, into another. */
struct block {
  struct block* next;
  uint64_t address, executed;
  uint64_t instructions, multiply_adds, memory; /* in one execution */
};
static struct block* blocks;
static FILE* blocks_file;

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
  struct block* block = calloc(1, sizeof *block);
  if (!block) abort();
  block->address = qemu_plugin_tb_vaddr(tb);
  block->instructions = qemu_plugin_tb_n_insns(tb);
  for (size_t i = 0; i < block->instructions; ++i) {
    const uint32_t code = *(const uint32_t*)qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i));
    block->multiply_adds += is_multiply_add(code);
    block->memory += is_memory(code);
  }
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &block->executed, 1);
}

static void begin(void) {
  for (struct block* b = blocks; b; b = b->next) b->executed = 0;
}

static void end(void) {
  if (blocks_file) fprintf(blocks_file, "region\n");
  uint64_t instructions = 0, multiply_adds = 0, memory = 0;
  for (struct block* b = blocks; b; b = b->next) {
    instructions += b->executed * b->instructions;
    multiply_adds += b->executed * b->multiply_adds;
    memory += b->executed * b->memory;
    if (!blocks_file || b->executed == 0) continue;
    fprintf(blocks_file, "%#" PRIx64 " %" PRIu64 " %" PRIu64 "\n", b->address, b->instructions, b->executed);
  }
  if (blocks_file) fflush(blocks_file);
  fprintf(stderr, "executed %" PRIu64 " multiply-adds %" PRIu64 " memory %" PRIu64 "\n", instructions, multiply_adds,
          memory);
  fflush(stderr);
}

static void system_call(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)vcpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  enum { kGetPriority = 141, kBegin = 1397440817, kEnd = 1397440818 };
  if (number != kGetPriority || a1 != 0) return;
  if (a2 == kBegin) begin();
  if (a2 == kEnd) end();
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t* info, int argc, char** argv) {
  (void)info;
  for (int i = 0; i < argc; ++i) {
    if (strncmp(argv[i], "blocks=", 7) != 0 || !(blocks_file = fopen(argv[i] + 7, "w"))) {
      fprintf(stderr, "arm_count: expected blocks=FILE, a file that can be written, got %s\n", argv[i]);
      return 1;
    }
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_vcpu_syscall_cb(id, system_call);
  return 0;
}
