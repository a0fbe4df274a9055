/* language.c: the language module javascript, of the world language in wit/script.wit. It
 * is the interpreter of guest-sdk/js, given its script by a host and not by module build,
 * with the objects of language.js for the script to find. build.sh makes
 * javascript.wasm.gz of it.
 *
 * A text with exports is a module: it is evaluated when it is loaded, and the functions that
 * it exports are its entries. Any other is a script: it is compiled when it is loaded, and
 * evaluated by each call, whose result is its completion value. */
#define CIRCLES_LANGUAGE
#include "../../guest-sdk/js/javascript.c"
#include "made.h" /* circles.js and language.js, as build.sh puts them there */

/* What scripts are called in stack traces, where language.js looks for it. */
#define TEXT "text"

static JSValue language; /* what language.js exports */
static JSValue script;   /* the text that is a script, compiled; undefined if it is a module */
static JSValue exported; /* the namespace of one that is a module */

static JSValue member(const char *name) { return JS_GetPropertyStr(ctx, language, name); }

/* The result of a function of language.js. It frees a. */
static JSValue ask(const char *name, JSValue a) {
  JSValue f = member(name), v = JS_Call(ctx, f, JS_UNDEFINED, 1, (JSValueConst *)&a);
  JS_FreeValue(ctx, f);
  JS_FreeValue(ctx, a);
  return v;
}

/* Whether b is UTF-8, which QuickJS does not say of what it makes a text of.
 * https://www.unicode.org/versions/Unicode16.0.0/core-spec/chapter-3/#G27506 */
static bool is_utf8(const uint8_t *b, size_t len) {
  for (size_t i = 0; i < len;) {
    uint8_t c = b[i];
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (n == 0 || n > len - i) return false;
    for (size_t k = 1; k < n; k++)
      if ((b[i + k] & 0xc0) != 0x80) return false;
    if ((c == 0xe0 && b[i + 1] < 0xa0) || (c == 0xed && b[i + 1] >= 0xa0) || (c == 0xf0 && b[i + 1] < 0x90) || (c == 0xf4 && b[i + 1] >= 0x90)) return false;
    i += n;
  }
  return true;
}

/* The text of an ArrayBuffer; undefined if it is none in UTF-8. */
HOST(host_text) {
  UNUSED;
  size_t len;
  const uint8_t *b = JS_GetArrayBuffer(ctx, &len, a[0]);
  if (!b && len) return JS_EXCEPTION;
  return is_utf8(b, len) ? JS_NewStringLen(ctx, (const char *)b, len) : JS_UNDEFINED;
}

/* The modules that there are: circles, and nothing that a text asks for. */
static JSModuleDef *find(JSContext *c, const char *name, void *opaque) {
  (void)opaque;
  if (!JS_IsUndefined(language) || strcmp(name, "circles") != 0) {
    JS_ThrowReferenceError(c, "there is no %s to import: a text is on its own; what it works with is there by name, and modules.call(name, entry, params) calls another module", name);
    return NULL;
  }
  JSValue v = JS_Eval(c, circles_js, sizeof circles_js - 1, "circles", JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
  if (JS_IsException(v)) return NULL;
  JSModuleDef *m = JS_VALUE_GET_PTR(v);
  JS_FreeValue(c, v);
  return m;
}

/* Evaluates a compiled module; false if it threw. */
static bool evaluate(JSValue module) {
  JSValue promise = JS_EvalFunction(ctx, module);
  if (JS_IsException(promise)) return false;
  bool settled = settle();
  JSPromiseStateEnum state = JS_PromiseState(ctx, promise);
  if (settled && state == JS_PROMISE_REJECTED) JS_Throw(ctx, JS_PromiseResult(ctx, promise));
  if (settled && state == JS_PROMISE_PENDING) JS_ThrowTypeError(ctx, "the text waits for what cannot happen: nothing runs beside it");
  JS_FreeValue(ctx, promise);
  return settled && state == JS_PROMISE_FULFILLED;
}

__attribute__((constructor)) static void begin(void) {
  rt = JS_NewRuntime();
  ctx = rt ? JS_NewContext(rt) : NULL;
  if (!ctx) __builtin_trap();
  JS_SetMaxStackSize(rt, 512 << 10); /* of the 1 MiB that build.sh gives */
  language = script = exported = JS_UNDEFINED;
  JS_SetModuleLoaderFunc(rt, NULL, find, NULL);
  JSValue global = JS_GetGlobalObject(ctx), host = JS_NewObject(ctx);
  JS_SetPropertyFunctionList(ctx, host, functions, sizeof functions / sizeof *functions);
  JS_SetPropertyStr(ctx, host, "text", JS_NewCFunction(ctx, host_text, "text", 1));
  JS_SetPropertyStr(ctx, global, "circlesHost", host);
  JS_FreeValue(ctx, global);
  JSValue module = JS_Eval(ctx, language_js, sizeof language_js - 1, "language", JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
  if (JS_IsException(module) || JS_ResolveModule(ctx, module) < 0) __builtin_trap();
  JSModuleDef *m = JS_VALUE_GET_PTR(module);
  if (!evaluate(module)) __builtin_trap();
  language = JS_GetModuleNamespace(ctx, m);
}

/* What was thrown, as language.js has it for people. */
static circles_result *explained(void) {
  JSValue e = JS_GetException(ctx), v = ask("explain", e);
  const char *s = JS_IsException(v) ? NULL : JS_ToCString(ctx, v);
  JS_FreeValue(ctx, v);
  if (!s) {
    char *message, *stack;
    thrown(&message, &stack); /* why it could not be explained, which is why it was thrown */
    circles_result *r = circles_fail(message);
    free(message);
    free(stack);
    return r;
  }
  circles_result *r = circles_fail(s);
  JS_FreeCString(ctx, s);
  return r;
}

/* The line and column of a SyntaxError that was just thrown, as one number. It stays thrown. */
static int64_t place(void) {
  JSValue e = JS_GetException(ctx), v = ask("place", JS_DupValue(ctx, e));
  int64_t n = 0;
  JS_ToInt64(ctx, &n, v);
  JS_FreeValue(ctx, v);
  JS_Throw(ctx, e);
  return n;
}

static circles_result *fail(void) { return explained(); }

CIRCLES_ENTRY(load) {
  char *source = malloc(params.len + 1);
  if (!source) return circles_fail("the text is too large");
  memcpy(source, params.data, params.len);
  source[params.len] = 0;
  script = JS_Eval(ctx, source, params.len, TEXT, JS_EVAL_TYPE_GLOBAL | JS_EVAL_FLAG_COMPILE_ONLY);
  if (JS_IsException(script)) {
    /* Perhaps because it has exports. If it is no module either, the parser that got further
     * was the one that it was written for. */
    script = JS_UNDEFINED;
    int64_t at = place();
    JSValue first = JS_GetException(ctx);
    JSValue module = JS_Eval(ctx, source, params.len, TEXT, JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
    if (JS_IsException(module)) {
      if (place() <= at) {
        JS_FreeValue(ctx, JS_GetException(ctx));
        JS_Throw(ctx, first);
      }
      return explained();
    }
    JS_FreeValue(ctx, first);
    JSModuleDef *m = JS_VALUE_GET_PTR(module);
    JS_FreeValue(ctx, ask("loads", JS_UNDEFINED));
    if (JS_ResolveModule(ctx, module) < 0 || !evaluate(module)) return explained();
    exported = JS_GetModuleNamespace(ctx, m);
  }
  free(source);
  JSValue entries = ask("load", JS_DupValue(ctx, exported));
  if (JS_IsException(entries)) return explained();
  circles_result *r = answer(entries);
  JS_FreeValue(ctx, entries);
  /* The runs begin with what is there now: clean, and none of them so close to the next
   * collection that each has to do it, which touches every page there is. */
  JS_RunGC(rt);
  JS_SetGCThreshold(rt, 8 << 20);
  return r;
}

CIRCLES_ENTRY(call) {
  JSValue p = is_utf8(params.data, params.len) ? JS_NewStringLen(ctx, (char *)params.data, params.len) : JS_NewArrayBufferCopy(ctx, params.data, params.len);
  JSValue v = ask("begin", p); /* params are there now */
  if (!JS_IsException(v) && JS_IsUndefined(exported)) {
    v = JS_EvalFunction(ctx, JS_DupValue(ctx, script));
  } else if (!JS_IsException(v)) {
    v = ask("enter", text(circles_entry_name()));
  }
  v = settled(v);
  if (!JS_IsException(v)) v = ask("encode", v);
  if (JS_IsException(v)) return explained();
  circles_result *r = answer(v);
  JS_FreeValue(ctx, v);
  return r;
}
