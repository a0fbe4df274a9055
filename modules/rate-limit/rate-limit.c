/* rate-limit: lets each caller in so often, and no oftener. To stand before another
 * module, in a compose.toml:
 *
 *   guestbook = ["rate-limit", "guestbook"]
 *
 * How often says the record rate-limit/settings, which the owner writes:
 *
 *   {"calls": 10, "seconds": 60}
 *
 * and without it that is DEFAULT_CALLS in DEFAULT_SECONDS. What each caller has used
 * is beside it, under the caller's id. Scripts that fail are not counted, as nothing of
 * them is kept.
 */
#include <circles.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

CIRCLES_MANIFEST("manifest.json");

static const char collection[] = "rate-limit";

enum { DEFAULT_CALLS = 60, DEFAULT_SECONDS = 3600 };

/* The number that stands after "name": in a JSON object of numbers; or what is there
 * already. A NUL follows text. At most twelve digits count. */
static void number(circles_bytes text, const char *name, int64_t *n) {
  char quoted[32];
  snprintf(quoted, sizeof quoted, "\"%s\"", name);
  const char *at = text.len > 0 ? strstr((const char *)text.data, quoted) : NULL;
  if (at == NULL) return;
  at += strlen(quoted);
  at += strspn(at, " \t\r\n:");
  int64_t value = 0;
  int digits = 0;
  for (; *at >= '0' && *at <= '9' && digits < 12; at++, digits++) value = value * 10 + (*at - '0');
  if (digits > 0) *n = value;
}

/* A record's value, or nothing if there is none. */
static bool get(const char *key, circles_bytes *out, circles_error *err) {
  if (circles_get_record(circles_target(), collection, key, out, err)) return true;
  if (err->code != CIRCLES_NOT_FOUND) return false;
  circles_error_free(err);
  *out = (circles_bytes){0};
  return true;
}

CIRCLES_ENTRY(run) {
  circles_bytes settings, used, caller = circles_id(circles_caller()), result;
  circles_error err;
  char key[256], value[96], sorry[128];
  snprintf(key, sizeof key, "%.*s", (int)caller.len, (const char *)caller.data);
  if (!get("settings", &settings, &err) || !get(key, &used, &err)) return circles_fail_error(&err);
  int64_t most = DEFAULT_CALLS, seconds = DEFAULT_SECONDS, since = 0, calls = 0, now = (int64_t)time(NULL);
  number(settings, "calls", &most);
  number(settings, "seconds", &seconds);
  number(used, "since", &since);
  number(used, "calls", &calls);
  if (now >= since + seconds || now < since) { /* a clock that was set back begins anew */
    since = now;
    calls = 0;
  }
  if (calls >= most) {
    snprintf(sorry, sizeof sorry, "that was often enough for now: %" PRId64 " times in %" PRId64 " s are welcome; come again in %" PRId64 " s",
             most, seconds, since + seconds - now);
    return circles_fail(sorry);
  }
  int len = snprintf(value, sizeof value, "{\"since\":%" PRId64 ",\"calls\":%" PRId64 "}", since, calls + 1);
  if (!circles_put_record(circles_target(), collection, key, value, (size_t)len, &err)) return circles_fail_error(&err);
  if (!circles_base("", params.data, params.len, &result, &err)) return circles_fail_error(&err);
  return circles_ok(result.data, result.len);
}
