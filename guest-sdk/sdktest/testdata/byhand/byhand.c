typedef unsigned char u8;
typedef unsigned int u32;

#define CONTEXTS(name) __attribute__((import_module("circles:host/contexts@0.1.2"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

CONTEXTS("caller") u32 host_caller(void);
CONTEXTS("[resource-drop]context") void host_drop(u32 self);
CONTEXTS("[method]context.read") void host_read(u32 self, const char *path, u32 n, void *ret);

extern u8 __heap_base; /* where the linker's data ends */

/* Memory is never given back: an instance is for one call. */
EXPORT("cabi_realloc") u8 *cabi_realloc(u8 *old, u32 old_size, u32 align, u32 size) {
  static u32 next;
  if (next == 0) next = (u32)&__heap_base;
  u32 at = (next + align - 1) & -align, end = at + size;
  u32 have = __builtin_wasm_memory_size(0) << 16;
  if (end < at) __builtin_trap();
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + 0xffff) >> 16) == (u32)-1) __builtin_trap();
  next = end;
  for (u32 i = 0; i < old_size && i < size; i++) ((u8 *)at)[i] = old[i];
  return (u8 *)at;
}

struct list { u8 *data; u32 len; };

struct list_result { /* result<list<u8>, error>: 16 bytes */
  u8 is_err;
  union {
    struct list ok;
    struct { u8 code; struct list message; } err;
  };
};

struct returned { /* result<list<u8>, string>: 12 bytes */
  u8 is_err;
  struct list value;
};

EXPORT("run") struct returned *run(u8 *params, u32 n) {
  (void)params, (void)n; /* it takes none */
  static struct returned returned;
  struct list_result card;
  u32 caller = host_caller();
  host_read(caller, "/card.txt", 9, &card);
  host_drop(caller);
  if (card.is_err) {
    returned = (struct returned){1, card.err.message};
    return &returned;
  }
  static const char hello[] = "hello, ";
  u32 len = sizeof hello - 1 + card.ok.len;
  u8 *text = cabi_realloc(0, 0, 1, len);
  for (u32 i = 0; i < sizeof hello - 1; i++) text[i] = hello[i];
  for (u32 i = 0; i < card.ok.len; i++) text[sizeof hello - 1 + i] = card.ok.data[i];
  returned = (struct returned){0, {text, len}};
  return &returned;
}
