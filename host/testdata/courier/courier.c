/* courier sends scripts from its target to other peers, for the tests of hosts. Params
 * begin with a line that says what is sent, and all that follows are its params:
 *
 *   TO MODULE ENTRY
 *   …
 */
#include <circles.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXTS(n) __attribute__((import_module("circles:host/contexts@0.1.2"), import_name(n)))

typedef struct {
  uint8_t is_err;
  union {
    circles_bytes ok;
    struct {
      uint8_t code;
      circles_bytes message;
    } err;
  } v;
} raw_result;

CONTEXTS("target") int32_t courier_target(void);
CONTEXTS("[resource-drop]context") void courier_drop(int32_t);
CONTEXTS("[method]context.send")
void courier_send(int32_t, const char *, size_t, const char *, size_t, const char *, size_t, const void *, size_t, raw_result *);

static const char *codes[] = {"not-found", "denied",    "exists",      "not-directory", "is-directory", "not-empty", "invalid",
                              "too-large", "read-only", "unavailable", "io",            "conflict",     "violates",  "failed"};

static char *text(circles_bytes b) {
  char *s = calloc(b.len + 1, 1);
  if (s == NULL) abort();
  if (b.len) memcpy(s, b.data, b.len);
  return s;
}

/* Sends what the first line of params says, with data, or what follows that line if it
 * is NULL. NULL if that is done; else what to fail with. */
static char *sends(char *params, const char *data, size_t len, circles_bytes *result) {
  char *rest = strchr(params, '\n'), line[4096], *to = line, *module, *entry;
  size_t n = rest ? (size_t)(rest - params) : strlen(params);
  if (n >= sizeof line) return "params: a line that is too long";
  memcpy(line, params, n);
  line[n] = 0;
  if ((module = strchr(to, ' ')) == NULL) return "params: want TO MODULE ENTRY";
  *module++ = 0;
  if ((entry = strchr(module, ' ')) == NULL) return "params: want TO MODULE ENTRY";
  *entry++ = 0;
  if (data == NULL) {
    data = rest ? rest + 1 : "";
    len = strlen(data);
  }
  raw_result r;
  memset(&r, 0, sizeof r);
  int32_t target = courier_target();
  courier_send(target, to, strlen(to), module, strlen(module), entry, strlen(entry), data, len, &r);
  courier_drop(target);
  if (!r.is_err) {
    *result = r.v.ok;
    return NULL;
  }
  char *message = text(r.v.err.message), *all = malloc(strlen(message) + 32);
  if (all == NULL) abort();
  sprintf(all, "%s: %s", r.v.err.code < 14 ? codes[r.v.err.code] : "?", message);
  return all;
}

CIRCLES_ENTRY(send) {
  circles_bytes result;
  char *wrong = sends(text(params), NULL, 0, &result);
  if (wrong) return circles_fail(wrong);
  return circles_ok(result.data, result.len);
}

/* Writes down that it was here, before and after. */
CIRCLES_ENTRY(keep) {
  circles_bytes result;
  circles_error err;
  char *p = text(params);
  if (!circles_append(circles_target(), "/kept", "before\n", 7, &err)) return circles_fail_error(&err);
  char *wrong = sends(p, NULL, 0, &result);
  if (wrong) return circles_fail(wrong);
  if (!circles_append(circles_target(), "/kept", "after\n", 6, &err)) return circles_fail_error(&err);
  return circles_ok(result.data, result.len);
}

/* What it could not send is its result. */
CIRCLES_ENTRY(ask) {
  circles_bytes result;
  char *wrong = sends(text(params), NULL, 0, &result);
  if (wrong) return circles_ok(wrong, strlen(wrong));
  return circles_ok(result.data, result.len);
}

CIRCLES_ENTRY(fail) {
  circles_bytes result;
  char *wrong = sends(text(params), NULL, 0, &result);
  return circles_fail(wrong ? wrong : "fails after it was sent");
}

/* Sends it twenty times, and tells how often, and why no more. */
CIRCLES_ENTRY(many) {
  circles_bytes result;
  char *p = text(params), *wrong = NULL, out[8192];
  int n = 0;
  while (n < 20 && !wrong) {
    wrong = sends(p, NULL, 0, &result);
    if (!wrong) n++;
  }
  n = snprintf(out, sizeof out, "%d %s", n, wrong ? wrong : "");
  return circles_ok(out, (size_t)n);
}

/* Sends what is in /secret. */
CIRCLES_ENTRY(leak) {
  circles_bytes secret, result;
  circles_error err;
  if (!circles_read(circles_target(), "/secret", &secret, &err)) return circles_fail_error(&err);
  char *wrong = sends(text(params), (char *)secret.data, secret.len, &result);
  if (wrong) return circles_ok(wrong, strlen(wrong));
  return circles_ok(result.data, result.len);
}

/* What others are sent to do: adds params to /seen, and returns all of it. */
CIRCLES_ENTRY(see) {
  circles_bytes all;
  circles_error err;
  if (!circles_append(circles_target(), "/seen", params.data, params.len, &err) ||
      !circles_read(circles_target(), "/seen", &all, &err))
    return circles_fail_error(&err);
  return circles_ok(all.data, all.len);
}
