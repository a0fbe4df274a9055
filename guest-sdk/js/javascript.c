/* javascript.c: a script module in JavaScript. It is QuickJS
 * (https://quickjs-ng.github.io/quickjs/), which runs one script, and the functions of
 * circles.h that circles.js is written with. build.sh makes javascript.wasm.gz of it;
 * module build puts a project's script in, as modules/build/javascript.go says:
 *
 *   - circles_script, an exported address, is where the script goes, behind its length;
 *   - the exports "entry 0" to "entry 31" are given the names of the entries, in the order
 *     in which the script has their functions in circlesEntries; those that are left over are
 *     taken away.
 *
 * The script runs once, when the module is initialised, without any context in reach.
 * A host may copy the module as it is then.
 *
 * modules/javascript/language.c is another way to give the interpreter its script. It
 * includes this file, with CIRCLES_LANGUAGE defined, and brings the rest itself.
 */
#include "circles.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "quickjs.h"

#ifndef CIRCLES_LANGUAGE
#define MAX_SCRIPT (1 << 20)

/* The length of the script, and the script. */
__attribute__((used, visibility("default"))) struct {
  uint32_t len;
  char text[MAX_SCRIPT + 1];
} circles_script;

static JSValue entries; /* an array of functions of an ArrayBuffer */
static char *broken;    /* why the script could not be begun; NULL if it could */
#endif

static JSRuntime *rt;
static JSContext *ctx;

/* ---- What circles.js calls ---- */

/* Throws [code, message], which circles.js makes an error of. */
static JSValue refuse(circles_error *e) {
  JSValue pair = JS_NewArray(ctx);
  JS_SetPropertyUint32(ctx, pair, 0, JS_NewInt32(ctx, e->code));
  JS_SetPropertyUint32(ctx, pair, 1, JS_NewStringLen(ctx, (char *)e->message.data, e->message.len));
  circles_error_free(e);
  return JS_Throw(ctx, pair);
}

static JSValue text(circles_bytes b) {
  JSValue v = JS_NewStringLen(ctx, (char *)b.data, b.len);
  circles_bytes_free(&b);
  return v;
}

static void *resize(JSRuntime *r, void *opaque, void *p, size_t size) {
  (void)r, (void)opaque;
  if (size) return realloc(p, size);
  free(p);
  return NULL;
}

/* An ArrayBuffer that owns b. */
static JSValue buffer(circles_bytes b) { return JS_NewArrayBuffer(ctx, b.data, b.len, 0, resize, NULL, false); }

static circles_context which(JSValueConst v) {
  int32_t n = 0;
  JS_ToInt32(ctx, &n, v);
  return n ? CIRCLES_TARGET : CIRCLES_CALLER;
}

/* The UTF-8 of v, to be freed with JS_FreeCString. Half a character is U+FFFD, as hosts
 * take no text that is not UTF-8: both have three bytes, and QuickJS has the halves in a
 * buffer of its own, not in v. */
static const char *utf8(JSValueConst v, size_t *len) {
  const char *s = JS_ToCStringLen(ctx, len, v);
  for (size_t i = 0; s && i + 2 < *len; i++)
    if ((uint8_t)s[i] == 0xed && (uint8_t)s[i + 1] >= 0xa0) memcpy((char *)s + i, "\xef\xbf\xbd", 3);
  return s;
}

/* The text of v, to be freed with JS_FreeCString. circles.h takes NUL-terminated text,
 * so one with a NUL in it is refused here, as a host would refuse it. */
static const char *named(JSValueConst v) {
  size_t len;
  const char *s = utf8(v, &len);
  if (s && strlen(s) != len) {
    JS_FreeCString(ctx, s);
    JSValue pair = JS_NewArray(ctx);
    JS_SetPropertyUint32(ctx, pair, 0, JS_NewInt32(ctx, CIRCLES_INVALID));
    JS_SetPropertyUint32(ctx, pair, 1, JS_NewString(ctx, "a name with a NUL in it"));
    JS_Throw(ctx, pair);
    return NULL;
  }
  return s;
}

#define HOST(name) static JSValue name(JSContext *c, JSValueConst this, int argc, JSValueConst *a)
#define UNUSED (void)c, (void)this, (void)argc

HOST(host_id) { UNUSED; return text(circles_id(which(a[0]))); }
HOST(host_name) { UNUSED; return text(circles_name(which(a[0]))); }

HOST(host_read) {
  UNUSED;
  const char *path = named(a[1]);
  if (!path) return JS_EXCEPTION;
  circles_bytes b;
  circles_error e;
  bool ok = circles_read(which(a[0]), path, &b, &e);
  JS_FreeCString(ctx, path);
  return ok ? buffer(b) : refuse(&e);
}

HOST(host_read_at) {
  UNUSED;
  int64_t offset;
  uint32_t length;
  if (JS_ToInt64Ext(ctx, &offset, a[2]) || JS_ToUint32(ctx, &length, a[3])) return JS_EXCEPTION;
  const char *path = named(a[1]);
  if (!path) return JS_EXCEPTION;
  circles_bytes b;
  circles_error e;
  bool ok = circles_read_at(which(a[0]), path, (uint64_t)offset, length, &b, &e);
  JS_FreeCString(ctx, path);
  return ok ? buffer(b) : refuse(&e);
}

/* The bytes of v, an ArrayBuffer, Uint8Array or anything whose text is meant.
 * *owned is to be freed with JS_FreeCString if it is not NULL. */
static bool bytes_of(JSValueConst v, const void **data, size_t *len, const char **owned) {
  *owned = NULL;
  if (JS_IsArrayBuffer(v)) {
    *data = JS_GetArrayBuffer(ctx, len, v);
    return *data || *len == 0;
  }
  if (JS_GetTypedArrayType(v) >= 0) {
    size_t offset, element;
    JSValue whole = JS_GetTypedArrayBuffer(ctx, v, &offset, len, &element);
    if (JS_IsException(whole)) return false;
    size_t all;
    const uint8_t *p = JS_GetArrayBuffer(ctx, &all, whole);
    JS_FreeValue(ctx, whole); /* v keeps it */
    *data = p + offset;
    return true;
  }
  *data = *owned = utf8(v, len);
  return *owned != NULL;
}

static JSValue put_file(JSValueConst *a, bool append) {
  const void *data;
  size_t len;
  const char *owned;
  if (!bytes_of(a[2], &data, &len, &owned)) return JS_EXCEPTION;
  const char *path = named(a[1]);
  bool ok = false;
  circles_error e;
  if (path) ok = (append ? circles_append : circles_write)(which(a[0]), path, data, len, &e);
  if (owned) JS_FreeCString(ctx, owned);
  if (!path) return JS_EXCEPTION;
  JS_FreeCString(ctx, path);
  return ok ? JS_UNDEFINED : refuse(&e);
}

HOST(host_write) { UNUSED; return put_file(a, false); }
HOST(host_append) { UNUSED; return put_file(a, true); }

HOST(host_make_directory) {
  UNUSED;
  const char *path = named(a[1]);
  if (!path) return JS_EXCEPTION;
  circles_error e;
  bool ok = circles_make_directory(which(a[0]), path, &e);
  JS_FreeCString(ctx, path);
  return ok ? JS_UNDEFINED : refuse(&e);
}

HOST(host_remove) {
  UNUSED;
  const char *path = named(a[1]);
  if (!path) return JS_EXCEPTION;
  circles_error e;
  bool ok = circles_remove(which(a[0]), path, &e);
  JS_FreeCString(ctx, path);
  return ok ? JS_UNDEFINED : refuse(&e);
}

HOST(host_stat) {
  UNUSED;
  const char *path = named(a[1]);
  if (!path) return JS_EXCEPTION;
  circles_stat s;
  circles_error e;
  bool ok = circles_stat_path(which(a[0]), path, &s, &e);
  JS_FreeCString(ctx, path);
  if (!ok) return refuse(&e);
  JSValue v = JS_NewArray(ctx);
  JS_SetPropertyUint32(ctx, v, 0, JS_NewInt32(ctx, s.kind));
  JS_SetPropertyUint32(ctx, v, 1, JS_NewFloat64(ctx, (double)s.size));
  JS_SetPropertyUint32(ctx, v, 2, JS_NewFloat64(ctx, (double)s.modified));
  return v;
}

HOST(host_list) {
  UNUSED;
  const char *path = named(a[1]);
  if (!path) return JS_EXCEPTION;
  circles_entries l;
  circles_error e;
  bool ok = circles_list(which(a[0]), path, &l, &e);
  JS_FreeCString(ctx, path);
  if (!ok) return refuse(&e);
  JSValue v = JS_NewArray(ctx); /* of name, kind, name, kind, … */
  for (size_t i = 0; i < l.len; i++) {
    JS_SetPropertyUint32(ctx, v, 2 * i, JS_NewStringLen(ctx, (char *)l.data[i].name.data, l.data[i].name.len));
    JS_SetPropertyUint32(ctx, v, 2 * i + 1, JS_NewInt32(ctx, l.data[i].kind));
  }
  circles_entries_free(&l);
  return v;
}

HOST(host_get) {
  UNUSED;
  const char *of = named(a[1]), *key = of ? named(a[2]) : NULL;
  circles_bytes b;
  circles_error e;
  bool ok = key && circles_get_record(which(a[0]), of, key, &b, &e);
  bool asked = key != NULL;
  JS_FreeCString(ctx, of);
  JS_FreeCString(ctx, key);
  if (!asked) return JS_EXCEPTION;
  return ok ? buffer(b) : refuse(&e);
}

HOST(host_put) {
  UNUSED;
  const void *data;
  size_t len;
  const char *owned;
  if (!bytes_of(a[3], &data, &len, &owned)) return JS_EXCEPTION;
  const char *of = named(a[1]), *key = of ? named(a[2]) : NULL;
  circles_error e;
  bool ok = key && circles_put_record(which(a[0]), of, key, data, len, &e);
  bool asked = key != NULL;
  JS_FreeCString(ctx, of);
  JS_FreeCString(ctx, key);
  JS_FreeCString(ctx, owned);
  if (!asked) return JS_EXCEPTION;
  return ok ? JS_UNDEFINED : refuse(&e);
}

HOST(host_delete) {
  UNUSED;
  const char *of = named(a[1]), *key = of ? named(a[2]) : NULL;
  circles_error e;
  bool ok = key && circles_delete_record(which(a[0]), of, key, &e);
  bool asked = key != NULL;
  JS_FreeCString(ctx, of);
  JS_FreeCString(ctx, key);
  if (!asked) return JS_EXCEPTION;
  return ok ? JS_UNDEFINED : refuse(&e);
}

/* The records l of a page, which it frees; or throws e. */
static JSValue page(bool ok, circles_records *l, circles_error *e) {
  if (!ok) return refuse(e);
  JSValue v = JS_NewArray(ctx); /* of next, key, value, key, value, … */
  JS_SetPropertyUint32(ctx, v, 0, JS_NewStringLen(ctx, (char *)l->next.data, l->next.len));
  for (size_t i = 0; i < l->len; i++) {
    circles_record *r = &l->data[i];
    JS_SetPropertyUint32(ctx, v, 2 * i + 1, JS_NewStringLen(ctx, (char *)r->key.data, r->key.len));
    JS_SetPropertyUint32(ctx, v, 2 * i + 2, r->denied ? JS_UNDEFINED : JS_NewArrayBufferCopy(ctx, r->value.data, r->value.len));
  }
  circles_records_free(l);
  return v;
}

/* The texts of n values, to be freed with free_names; false if one of them is none. */
static bool names(JSValueConst *a, int n, const char **into) {
  for (int i = 0; i < n; i++) into[i] = NULL;
  for (int i = 0; i < n; i++)
    if (!(into[i] = named(a[i]))) return false;
  return true;
}

static void free_names(const char **names, int n) {
  for (int i = 0; i < n; i++) JS_FreeCString(ctx, names[i]);
}

HOST(host_page) {
  UNUSED;
  uint32_t limit;
  const char *n[3]; /* collection, start, prefix */
  if (JS_ToUint32(ctx, &limit, a[4])) return JS_EXCEPTION;
  circles_records l;
  circles_error e;
  bool asked = names(a + 1, 3, n), ok = asked && circles_list_records(which(a[0]), n[0], n[1], n[2], limit, &l, &e);
  free_names(n, 3);
  return asked ? page(ok, &l, &e) : JS_EXCEPTION;
}

HOST(host_query) {
  UNUSED;
  uint32_t limit;
  const char *n[3]; /* collection, query, start */
  if (JS_ToUint32(ctx, &limit, a[4])) return JS_EXCEPTION;
  circles_records l;
  circles_error e;
  bool asked = names(a + 1, 3, n), ok = asked && circles_query_records(which(a[0]), n[0], n[1], n[2], limit, &l, &e);
  free_names(n, 3);
  return asked ? page(ok, &l, &e) : JS_EXCEPTION;
}

HOST(host_replace) {
  UNUSED;
  const void *expected = NULL, *data;
  size_t expected_len = 0, len;
  const char *expected_owned = NULL, *owned, *n[2]; /* collection, key */
  if (!JS_IsUndefined(a[3]) && !JS_IsNull(a[3])) {
    if (!bytes_of(a[3], &expected, &expected_len, &expected_owned)) return JS_EXCEPTION;
    if (!expected) expected = ""; /* of an empty buffer; NULL is that there is no record */
  }
  if (!bytes_of(a[4], &data, &len, &owned)) {
    JS_FreeCString(ctx, expected_owned);
    return JS_EXCEPTION;
  }
  circles_error e;
  bool asked = names(a + 1, 2, n);
  bool ok = asked && circles_replace_record(which(a[0]), n[0], n[1], expected, expected_len, data, len, &e);
  free_names(n, 2);
  JS_FreeCString(ctx, expected_owned);
  JS_FreeCString(ctx, owned);
  if (!asked) return JS_EXCEPTION;
  return ok ? JS_UNDEFINED : refuse(&e);
}

/* Another module's or script's result: of n names, and params behind them. c is who sends. */
static JSValue result(JSValueConst *a, int n, circles_context c,
                      bool (*run)(circles_context, const char **, const void *, size_t, circles_bytes *, circles_error *)) {
  const void *data;
  size_t len;
  const char *owned, *texts[3];
  if (!bytes_of(a[n], &data, &len, &owned)) return JS_EXCEPTION;
  circles_bytes b;
  circles_error e;
  bool asked = names(a, n, texts), ok = asked && run(c, texts, data, len, &b, &e);
  free_names(texts, n);
  JS_FreeCString(ctx, owned);
  if (!asked) return JS_EXCEPTION;
  return ok ? buffer(b) : refuse(&e);
}

static bool run_call(circles_context c, const char **n, const void *data, size_t len, circles_bytes *b, circles_error *e) {
  (void)c;
  return circles_call(n[0], n[1], data, len, b, e);
}
static bool run_base(circles_context c, const char **n, const void *data, size_t len, circles_bytes *b, circles_error *e) {
  (void)c;
  return circles_base(n[0], data, len, b, e);
}
static bool run_send(circles_context c, const char **n, const void *data, size_t len, circles_bytes *b, circles_error *e) {
  return circles_send(c, n[0], n[1], n[2], data, len, b, e);
}

HOST(host_call) { UNUSED; return result(a, 2, CIRCLES_TARGET, run_call); }
HOST(host_base) { UNUSED; return result(a, 1, CIRCLES_TARGET, run_base); }
HOST(host_send) { UNUSED; return result(a + 1, 3, which(a[0]), run_send); }
HOST(host_entry) { UNUSED; (void)a; return text(circles_entry_name()); }

HOST(host_log) {
  UNUSED;
  int32_t level = CIRCLES_INFO;
  JS_ToInt32(ctx, &level, a[0]);
  size_t len;
  const char *s = utf8(a[1], &len);
  char *line = s ? malloc(len + 1) : NULL;
  if (!line) return JS_EXCEPTION;
  for (size_t i = 0; i < len; i++) line[i] = s[i] ? s[i] : ' '; /* circles_log stops at a NUL */
  line[len] = 0;
  JS_FreeCString(ctx, s);
  circles_log((circles_level)level, line);
  free(line);
  return JS_UNDEFINED;
}

/* A number in [0, 1), from the host: QuickJS would draw a seed once, and every copy of
 * the module the same numbers from it. */
HOST(host_random) {
  UNUSED;
  (void)a;
  uint64_t n = 0;
  getentropy(&n, sizeof n);
  return JS_NewFloat64(ctx, (double)(n >> 11) * 0x1p-53);
}

HOST(host_random_bytes) {
  UNUSED;
  size_t len, offset, element;
  JSValue whole = JS_GetTypedArrayBuffer(ctx, a[0], &offset, &len, &element);
  if (JS_IsException(whole)) return whole;
  size_t all;
  uint8_t *p = JS_GetArrayBuffer(ctx, &all, whole);
  JS_FreeValue(ctx, whole);
  for (size_t at = 0; at < len; at += 256) getentropy(p + offset + at, len - at < 256 ? len - at : 256);
  return JS_DupValue(ctx, a[0]);
}

/* The UTF-8 of a text, and the text of an ArrayBuffer or Uint8Array. */
HOST(host_encode) {
  UNUSED;
  size_t len;
  const char *s = utf8(a[0], &len);
  if (!s) return JS_EXCEPTION;
  JSValue v = JS_NewArrayBufferCopy(ctx, (const uint8_t *)s, len);
  JS_FreeCString(ctx, s);
  return v;
}

HOST(host_decode) {
  UNUSED;
  const void *data;
  size_t len;
  const char *owned;
  if (!bytes_of(a[0], &data, &len, &owned)) return JS_EXCEPTION;
  JSValue v = JS_NewStringLen(ctx, data, len);
  JS_FreeCString(ctx, owned);
  return v;
}

static const JSCFunctionListEntry functions[] = {
    JS_CFUNC_DEF("id", 1, host_id),
    JS_CFUNC_DEF("name", 1, host_name),
    JS_CFUNC_DEF("read", 2, host_read),
    JS_CFUNC_DEF("readAt", 4, host_read_at),
    JS_CFUNC_DEF("write", 3, host_write),
    JS_CFUNC_DEF("append", 3, host_append),
    JS_CFUNC_DEF("makeDirectory", 2, host_make_directory),
    JS_CFUNC_DEF("remove", 2, host_remove),
    JS_CFUNC_DEF("stat", 2, host_stat),
    JS_CFUNC_DEF("list", 2, host_list),
    JS_CFUNC_DEF("getRecord", 3, host_get),
    JS_CFUNC_DEF("putRecord", 4, host_put),
    JS_CFUNC_DEF("deleteRecord", 3, host_delete),
    JS_CFUNC_DEF("listRecords", 5, host_page),
    JS_CFUNC_DEF("replaceRecord", 5, host_replace),
    JS_CFUNC_DEF("queryRecords", 5, host_query),
    JS_CFUNC_DEF("send", 5, host_send),
    JS_CFUNC_DEF("call", 3, host_call),
    JS_CFUNC_DEF("base", 2, host_base),
    JS_CFUNC_DEF("entry", 0, host_entry),
    JS_CFUNC_DEF("log", 2, host_log),
    JS_CFUNC_DEF("random", 0, host_random),
    JS_CFUNC_DEF("randomBytes", 1, host_random_bytes),
    JS_CFUNC_DEF("encode", 1, host_encode),
    JS_CFUNC_DEF("decode", 1, host_decode),
};

/* ---- The script ---- */

/* What was thrown, for people: its message, and where. Both are to be freed. */
static void thrown(char **message, char **stack) {
  JSValue e = JS_GetException(ctx);
  JSValue m = JS_IsError(e) ? JS_GetPropertyStr(ctx, e, "message") : JS_DupValue(ctx, e);
  JSValue at = JS_IsError(e) ? JS_GetPropertyStr(ctx, e, "stack") : JS_UNDEFINED;
  JSValue kind = JS_IsError(e) ? JS_GetPropertyStr(ctx, e, "name") : JS_UNDEFINED;
  const char *s = JS_ToCString(ctx, m);
  *message = strdup(s ? s : "something was thrown that has no text");
  JS_FreeCString(ctx, s);
  *stack = NULL;
  if (JS_IsString(at)) {
    const char *where = JS_ToCString(ctx, at), *what = JS_ToCString(ctx, kind);
    size_t n = strlen(where ? where : "") + strlen(what ? what : "") + strlen(*message) + 8;
    if ((*stack = malloc(n))) snprintf(*stack, n, "%s: %s\n%s", what ? what : "", *message, where ? where : "");
    JS_FreeCString(ctx, where);
    JS_FreeCString(ctx, what);
  }
  JS_FreeValue(ctx, kind);
  JS_FreeValue(ctx, at);
  JS_FreeValue(ctx, m);
  JS_FreeValue(ctx, e);
}

/* Runs what promises wait for; false when one of them threw. */
static bool settle(void) {
  JSContext *c;
  int n;
  while ((n = JS_ExecutePendingJob(rt, &c)) > 0) {
  }
  return n == 0;
}

/* What an async function's promise comes to, once nothing is left that it waits for; any
 * other value as it is. It frees v. */
static JSValue settled(JSValue v) {
  if (JS_IsException(v) || JS_PromiseState(ctx, v) < 0) return v;
  settle();
  JSPromiseStateEnum state = JS_PromiseState(ctx, v);
  JSValue result = state == JS_PROMISE_PENDING ? JS_ThrowTypeError(ctx, "the entry waits for what cannot happen: nothing runs beside it")
                                               : JS_PromiseResult(ctx, v);
  if (state == JS_PROMISE_REJECTED) result = JS_Throw(ctx, result);
  JS_FreeValue(ctx, v);
  return result;
}

static circles_result *fail(void);

/* What an entry returned, as bytes. */
static circles_result *answer(JSValueConst v) {
  const void *data;
  size_t len;
  const char *owned;
  if (!bytes_of(v, &data, &len, &owned)) return fail();
  circles_result *r = circles_ok(data, len);
  JS_FreeCString(ctx, owned);
  return r;
}

#ifndef CIRCLES_LANGUAGE
/* A module initialises itself by a constructor: crt1-reactor.o's _initialize. */
__attribute__((constructor)) static void begin(void) {
  rt = JS_NewRuntime();
  ctx = rt ? JS_NewContext(rt) : NULL;
  if (!ctx) __builtin_trap();
  JS_SetMaxStackSize(rt, 512 << 10); /* of the 1 MiB that build.sh gives */
  entries = JS_UNDEFINED;
  JSValue global = JS_GetGlobalObject(ctx), host = JS_NewObject(ctx);
  JS_SetPropertyFunctionList(ctx, host, functions, sizeof functions / sizeof *functions);
  JS_SetPropertyStr(ctx, global, "circlesHost", host);
  if (circles_script.len <= MAX_SCRIPT) {
    circles_script.text[circles_script.len] = 0;
    JSValue done = JS_Eval(ctx, circles_script.text, circles_script.len, "script.js", JS_EVAL_TYPE_GLOBAL);
    if (JS_IsException(done) || !settle()) {
      char *stack;
      thrown(&broken, &stack);
      free(stack);
    }
    JS_FreeValue(ctx, done);
  }
  entries = JS_GetPropertyStr(ctx, global, "circlesEntries");
  JS_FreeValue(ctx, global);
}

static circles_result *fail(void) {
  char *message, *stack;
  thrown(&message, &stack);
  for (char *line = stack ? strtok(stack, "\n") : NULL; line; line = strtok(NULL, "\n")) circles_log(CIRCLES_ERROR, line);
  circles_result *r = circles_fail(message);
  free(message);
  free(stack);
  return r;
}

static circles_result *call(uint32_t i, circles_bytes params) {
  if (broken) return circles_fail(broken); /* what the top level threw */
  JSValue f = JS_GetPropertyUint32(ctx, entries, i);
  JSValue p = JS_NewArrayBufferCopy(ctx, params.data, params.len);
  JSValue v = JS_Call(ctx, f, JS_UNDEFINED, 1, (JSValueConst *)&p);
  JS_FreeValue(ctx, p);
  JS_FreeValue(ctx, f);
  v = settled(v);
  if (JS_IsException(v)) return fail();
  circles_result *r = answer(v);
  JS_FreeValue(ctx, v);
  return r;
}

#define ENTRY(n) \
  CIRCLES_ENTRY_AS(entry_##n, "entry " #n) { return call(n, params); }
ENTRY(0) ENTRY(1) ENTRY(2) ENTRY(3) ENTRY(4) ENTRY(5) ENTRY(6) ENTRY(7)
ENTRY(8) ENTRY(9) ENTRY(10) ENTRY(11) ENTRY(12) ENTRY(13) ENTRY(14) ENTRY(15)
ENTRY(16) ENTRY(17) ENTRY(18) ENTRY(19) ENTRY(20) ENTRY(21) ENTRY(22) ENTRY(23)
ENTRY(24) ENTRY(25) ENTRY(26) ENTRY(27) ENTRY(28) ENTRY(29) ENTRY(30) ENTRY(31)
#endif
