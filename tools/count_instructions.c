// Counts the instructions that QEMU's user emulation executes, and prints the count at each `close` of MARK.
//
// QEMU's header is in no package that is easy to get, so the few functions are declared here (docs: QEMU TCG plugins).
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

typedef void (*translate_t)(qemu_plugin_id_t id, struct qemu_plugin_tb* block);
typedef void (*execute_t)(unsigned int cpu, void* data);
typedef void (*syscall_t)(qemu_plugin_id_t id, unsigned int cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t,
                          uint64_t, uint64_t, uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translate_t callback);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb* block, execute_t callback,
                                          enum qemu_plugin_cb_flags flags, void* data);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, syscall_t callback);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);

#define CLOSE 57  // of AArch64
#define MARK 987654

int qemu_plugin_version = VERSION;
static uint64_t count;

static void execute(unsigned int cpu, void* instructions) {
  (void)cpu;
  __atomic_fetch_add(&count, (uint64_t)(uintptr_t)instructions, __ATOMIC_RELAXED);
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  void* instructions = (void*)(uintptr_t)qemu_plugin_tb_n_insns(block);
  qemu_plugin_register_vcpu_tb_exec_cb(block, execute, QEMU_PLUGIN_CB_NO_REGS, instructions);
}

static void system_call(qemu_plugin_id_t id, unsigned int cpu, int64_t number, uint64_t file, uint64_t a, uint64_t b,
                        uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g) {
  (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g;
  if (number == CLOSE && file == MARK) fprintf(stderr, "instructions %" PRIu64 "\n", count);
}

int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int argc, char** argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_vcpu_syscall_cb(id, system_call);
  return 0;
}
