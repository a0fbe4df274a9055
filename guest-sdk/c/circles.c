/* The Canonical ABI side of circles.h. See there for what the functions mean. */
#include "circles.h"

#include <stdlib.h>
#include <string.h>

#define CONTEXTS(n) __attribute__((import_module("circles:host/contexts@0.1.2"), import_name(n)))
#define MODULES(n) __attribute__((import_module("circles:host/modules@0.1.2"), import_name(n)))
#define LOG(n) __attribute__((import_module("circles:host/log@0.1.2"), import_name(n)))

/* error and result<_, error> as they lie in memory. The tag and the code are
 * one byte each; the host leaves the bytes after them as they were, so they are
 * never read as a wider type. */
typedef struct {
  uint8_t code;
  circles_bytes message;
} raw_error;

typedef struct {
  uint8_t is_err;
  union {
    circles_bytes bytes;
    raw_error err;
  } v;
} raw_result;

typedef struct {
  uint8_t is_err;
  union {
    struct {
      uint8_t kind;
      uint64_t size, modified;
    } ok;
    raw_error err;
  } v;
} raw_stat;

typedef struct {
  circles_bytes name;
  uint8_t kind;
} raw_entry;

typedef struct {
  circles_bytes key;
  uint8_t some;
  circles_bytes value;
} raw_item;

typedef struct {
  uint8_t is_err;
  union {
    struct {
      circles_bytes items, next;
    } ok;
    raw_error err;
  } v;
} raw_page;

_Static_assert(sizeof(raw_error) == 12 && offsetof(raw_error, message) == 4, "error");
_Static_assert(sizeof(raw_result) == 16 && offsetof(raw_result, v) == 4, "result<list<u8>, error>");
_Static_assert(sizeof(raw_stat) == 32 && offsetof(raw_stat, v) == 8, "result<stat, error>");
_Static_assert(sizeof(raw_entry) == 12 && offsetof(raw_entry, kind) == 8, "entry");
_Static_assert(sizeof(raw_item) == 20 && offsetof(raw_item, value) == 12, "item");
_Static_assert(sizeof(raw_page) == 20 && offsetof(raw_page, v) == 4, "result<page, error>");

CONTEXTS("caller") int32_t host_caller(void);
CONTEXTS("target") int32_t host_target(void);
CONTEXTS("[method]context.id") void host_id(int32_t self, circles_bytes *ret);
CONTEXTS("[method]context.name") void host_name(int32_t self, circles_bytes *ret);
CONTEXTS("[method]context.read") void host_read(int32_t, const char *, size_t, raw_result *);
CONTEXTS("[method]context.read-at")
void host_read_at(int32_t, const char *, size_t, uint64_t offset, uint32_t length, raw_result *);
CONTEXTS("[method]context.write")
void host_write(int32_t, const char *, size_t, const void *data, size_t len, raw_result *);
CONTEXTS("[method]context.append")
void host_append(int32_t, const char *, size_t, const void *data, size_t len, raw_result *);
CONTEXTS("[method]context.list") void host_list(int32_t, const char *, size_t, raw_result *);
CONTEXTS("[method]context.stat") void host_stat(int32_t, const char *, size_t, raw_stat *);
CONTEXTS("[method]context.make-directory") void host_mkdir(int32_t, const char *, size_t, raw_result *);
CONTEXTS("[method]context.remove") void host_remove(int32_t, const char *, size_t, raw_result *);
CONTEXTS("[method]context.get-record")
void host_get_record(int32_t, const char *, size_t, const char *, size_t, raw_result *);
CONTEXTS("[method]context.put-record")
void host_put_record(int32_t, const char *, size_t, const char *, size_t, const void *, size_t, raw_result *);
CONTEXTS("[method]context.delete-record")
void host_delete_record(int32_t, const char *, size_t, const char *, size_t, raw_result *);
CONTEXTS("[method]context.list-records")
void host_list_records(int32_t, const char *, size_t, const char *, size_t, const char *, size_t, uint32_t, raw_page *);
CONTEXTS("[method]context.replace-record")
void host_replace_record(int32_t, const char *, size_t, const char *, size_t, int32_t some, const void *, size_t, const void *,
                         size_t, raw_result *);
CONTEXTS("[method]context.query-records")
void host_query_records(int32_t, const char *, size_t, const char *, size_t, const char *, size_t, uint32_t, raw_page *);
CONTEXTS("[method]context.send")
void host_send(int32_t, const char *, size_t, const char *, size_t, const char *, size_t, const void *, size_t, raw_result *);
MODULES("call") void host_call(const char *, size_t, const char *, size_t, const void *, size_t, raw_result *);
MODULES("base") void host_base(const char *, size_t, const void *, size_t, raw_result *);
MODULES("entry") void host_entry(circles_bytes *ret);
CONTEXTS("[resource-drop]context") void host_drop(int32_t self);
LOG("write") void host_log(int32_t level, const char *message, size_t len);

/* The host makes room for what it returns here. One byte more than it asks for
 * is kept and zeroed, so that text can be used as a C string. */
__attribute__((export_name("cabi_realloc"), used)) void *circles__realloc(void *old, size_t old_size,
                                                                        size_t align, size_t size) {
  (void)old_size;
  if (size == 0 && old == NULL) return (void *)align; /* never read; circles_bytes_free knows it by its length */
  if (align > _Alignof(max_align_t) || size == SIZE_MAX) __builtin_trap();
  uint8_t *p = realloc(old, size + 1);
  if (p == NULL) __builtin_trap();
  p[size] = 0;
  return p;
}

static void *must(void *p) {
  if (p == NULL) __builtin_trap();
  return p;
}

/* owned replaces the aligned non-address that stands for an empty list. */
static circles_bytes owned(circles_bytes b) {
  if (b.len == 0) b.data = must(calloc(1, 1));
  return b;
}

void circles_bytes_free(circles_bytes *b) {
  free(b->data);
  b->data = NULL;
  b->len = 0;
}

void circles_error_free(circles_error *e) { circles_bytes_free(&e->message); }

bool circles_next_violation(const circles_error *e, circles_violation *v) {
  const char *end = (const char *)e->message.data + e->message.len;
  const char *at = v->reason ? v->reason + v->reason_len : (const char *)e->message.data;
  while (e->code == CIRCLES_VIOLATES && at < end) {
    if (*at == '\n') at++;
    const char *stop = at;
    while (stop < end && *stop != '\n') stop++;
    for (const char *p = at; (at < stop && (*at == '/' || *at == ':')) && p + 1 < stop; p++)
      if (p[0] == ':' && p[1] == ' ') {
        *v = (circles_violation){at, (size_t)(p - at), p + 2, (size_t)(stop - p - 2)};
        return true;
      }
    at = stop;
  }
  return false;
}

/* ---- Contexts ---- */

/* Handles are got when first needed, not kept in the module's initial state: a
 * host may initialise a module once, without any context, and copy it. They are
 * dropped at the end of each entry. */
static int32_t handles[2];
static bool held[2];

static int32_t handle(circles_context c) {
  int i = c == CIRCLES_TARGET;
  if (!held[i]) {
    handles[i] = i ? host_target() : host_caller();
    held[i] = true;
  }
  return handles[i];
}

static void drop_handles(void) {
  for (int i = 0; i < 2; i++)
    if (held[i]) {
      held[i] = false;
      host_drop(handles[i]);
    }
}

static bool refuse(const raw_error *raw, circles_error *err) {
  circles_error e = {(circles_code)raw->code, owned(raw->message)};
  if (err != NULL)
    *err = e;
  else
    circles_error_free(&e);
  return false;
}

static bool done(const raw_result *r, circles_error *err) {
  return r->is_err ? refuse(&r->v.err, err) : true;
}

static bool bytes(const raw_result *r, circles_bytes *out, circles_error *err) {
  if (r->is_err) return refuse(&r->v.err, err);
  *out = owned(r->v.bytes);
  return true;
}

circles_bytes circles_id(circles_context c) {
  circles_bytes b;
  host_id(handle(c), &b);
  return owned(b);
}

circles_bytes circles_name(circles_context c) {
  circles_bytes b;
  host_name(handle(c), &b);
  return owned(b);
}

bool circles_read(circles_context c, const char *path, circles_bytes *out, circles_error *err) {
  raw_result r;
  host_read(handle(c), path, strlen(path), &r);
  return bytes(&r, out, err);
}

bool circles_read_at(circles_context c, const char *path, uint64_t offset, uint32_t length,
                     circles_bytes *out, circles_error *err) {
  raw_result r;
  host_read_at(handle(c), path, strlen(path), offset, length, &r);
  return bytes(&r, out, err);
}

bool circles_write(circles_context c, const char *path, const void *data, size_t len, circles_error *err) {
  raw_result r;
  host_write(handle(c), path, strlen(path), data, len, &r);
  return done(&r, err);
}

bool circles_append(circles_context c, const char *path, const void *data, size_t len, circles_error *err) {
  raw_result r;
  host_append(handle(c), path, strlen(path), data, len, &r);
  return done(&r, err);
}

bool circles_make_directory(circles_context c, const char *path, circles_error *err) {
  raw_result r;
  host_mkdir(handle(c), path, strlen(path), &r);
  return done(&r, err);
}

bool circles_remove(circles_context c, const char *path, circles_error *err) {
  raw_result r;
  host_remove(handle(c), path, strlen(path), &r);
  return done(&r, err);
}

bool circles_stat_path(circles_context c, const char *path, circles_stat *out, circles_error *err) {
  raw_stat r;
  host_stat(handle(c), path, strlen(path), &r);
  if (r.is_err) return refuse(&r.v.err, err);
  out->kind = (circles_kind)r.v.ok.kind;
  out->size = r.v.ok.size;
  out->modified = r.v.ok.modified;
  return true;
}

bool circles_list(circles_context c, const char *path, circles_entries *out, circles_error *err) {
  raw_result r;
  host_list(handle(c), path, strlen(path), &r);
  if (r.is_err) return refuse(&r.v.err, err);
  size_t n = r.v.bytes.len;
  raw_entry *raw = (raw_entry *)r.v.bytes.data;
  out->len = n;
  out->data = must(calloc(n ? n : 1, sizeof *out->data));
  for (size_t i = 0; i < n; i++) {
    out->data[i].name = owned(raw[i].name);
    out->data[i].kind = (circles_kind)raw[i].kind;
  }
  if (n) free(raw);
  return true;
}

void circles_entries_free(circles_entries *l) {
  for (size_t i = 0; i < l->len; i++) circles_bytes_free(&l->data[i].name);
  free(l->data);
  l->data = NULL;
  l->len = 0;
}

bool circles_get_record(circles_context c, const char *collection, const char *key, circles_bytes *out,
                        circles_error *err) {
  raw_result r;
  host_get_record(handle(c), collection, strlen(collection), key, strlen(key), &r);
  return bytes(&r, out, err);
}

bool circles_put_record(circles_context c, const char *collection, const char *key, const void *value, size_t len,
                        circles_error *err) {
  raw_result r;
  host_put_record(handle(c), collection, strlen(collection), key, strlen(key), value, len, &r);
  return done(&r, err);
}

bool circles_delete_record(circles_context c, const char *collection, const char *key, circles_error *err) {
  raw_result r;
  host_delete_record(handle(c), collection, strlen(collection), key, strlen(key), &r);
  return done(&r, err);
}

bool circles_replace_record(circles_context c, const char *collection, const char *key, const void *expected,
                            size_t expected_len, const void *value, size_t len, circles_error *err) {
  raw_result r;
  host_replace_record(handle(c), collection, strlen(collection), key, strlen(key), expected != NULL, expected, expected_len,
                      value, len, &r);
  return done(&r, err);
}

static bool page(const raw_page *r, circles_records *out, circles_error *err) {
  if (r->is_err) return refuse(&r->v.err, err);
  size_t n = r->v.ok.items.len;
  raw_item *raw = (raw_item *)r->v.ok.items.data;
  out->next = owned(r->v.ok.next);
  out->len = n;
  out->data = must(calloc(n ? n : 1, sizeof *out->data));
  for (size_t i = 0; i < n; i++) {
    out->data[i].key = owned(raw[i].key);
    out->data[i].denied = !raw[i].some;
    out->data[i].value = owned(raw[i].some ? raw[i].value : (circles_bytes){NULL, 0});
  }
  if (n) free(raw);
  return true;
}

bool circles_list_records(circles_context c, const char *collection, const char *start, const char *prefix,
                          uint32_t limit, circles_records *out, circles_error *err) {
  raw_page r;
  host_list_records(handle(c), collection, strlen(collection), start, strlen(start), prefix, strlen(prefix), limit, &r);
  return page(&r, out, err);
}

bool circles_query_records(circles_context c, const char *collection, const char *query, const char *start,
                           uint32_t limit, circles_records *out, circles_error *err) {
  raw_page r;
  host_query_records(handle(c), collection, strlen(collection), query, strlen(query), start, strlen(start), limit, &r);
  return page(&r, out, err);
}

void circles_records_free(circles_records *l) {
  for (size_t i = 0; i < l->len; i++) {
    circles_bytes_free(&l->data[i].key);
    circles_bytes_free(&l->data[i].value);
  }
  circles_bytes_free(&l->next);
  free(l->data);
  l->data = NULL;
  l->len = 0;
}

bool circles_call(const char *module, const char *entry, const void *params, size_t len, circles_bytes *out,
                  circles_error *err) {
  raw_result r;
  host_call(module, strlen(module), entry, strlen(entry), params, len, &r);
  return bytes(&r, out, err);
}

bool circles_base(const char *entry, const void *params, size_t len, circles_bytes *out, circles_error *err) {
  raw_result r;
  host_base(entry, strlen(entry), params, len, &r);
  return bytes(&r, out, err);
}

circles_bytes circles_entry_name(void) {
  circles_bytes b;
  host_entry(&b);
  return owned(b);
}

bool circles_send(circles_context c, const char *to, const char *logic, const char *entry, const void *params,
                  size_t len, circles_bytes *out, circles_error *err) {
  raw_result r;
  host_send(handle(c), to, strlen(to), logic, strlen(logic), entry, strlen(entry), params, len, &r);
  return bytes(&r, out, err);
}

void circles_log(circles_level level, const char *message) { host_log(level, message, strlen(message)); }

/* ---- Entries ---- */

/* result<list<u8>, string>. One is enough: an instance runs one entry at a
 * time, and the host has read the result before it calls the next. That is also
 * why there is no cabi_post_: the next entry frees it. */
struct circles_result {
  uint8_t is_err;
  circles_bytes v;
};
_Static_assert(sizeof(circles_result) == 12 && offsetof(circles_result, v) == 4, "result<list<u8>, string>");

static circles_result result;

static circles_result *returning(bool is_err, const void *data, size_t len) {
  uint8_t *copy = must(malloc(len ? len : 1));
  if (len) memcpy(copy, data, len);
  free(result.v.data);
  result.is_err = is_err;
  result.v.data = copy;
  result.v.len = len;
  return &result;
}

circles_result *circles_ok(const void *data, size_t len) { return returning(false, data, len); }

circles_result *circles_fail(const char *message) { return returning(true, message, strlen(message)); }

circles_result *circles_fail_error(circles_error *e) {
  circles_result *r = returning(true, e->message.data, e->message.len);
  circles_error_free(e);
  return r;
}

void circles__begin(void) { circles_bytes_free(&result.v); }

void circles__end(circles_bytes params) {
  if (params.len) free(params.data);
  drop_handles();
}
