/* audit: writes down who did what. To stand before another module, in a compose.toml:
 *
 *   guestbook = ["audit", "guestbook"]
 *
 * It goes on to that, and if that goes well adds a line to the file /audit.log:
 *
 *   {"at":"2026-11-23T14:05:09Z","caller":"did:key:z6Mk…","name":"alice","entry":"sign","code":"done","bytes":27}
 *
 * What cannot be written down is not done. What failed has left nothing, and no line
 * either: its receipt is in the log of the peer, which nobody can leave out.
 */
#include <circles.h>

#include <stdio.h>
#include <string.h>
#include <time.h>

CIRCLES_MANIFEST("manifest.json");

static const char file[] = "/audit.log";

enum { MAX_TEXT = 200 }; /* bytes of a name that are written */

/* Adds text to line as what stands in a JSON string. */
static char *quoted(char *at, circles_bytes text) {
  for (size_t i = 0; i < text.len && i < MAX_TEXT; i++) {
    uint8_t c = text.data[i];
    if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
      at += sprintf(at, "\\u%04x", c < 0x80 ? c : 0xfffd);
    else
      *at++ = (char)c;
  }
  *at = 0;
  return at;
}

CIRCLES_ENTRY(run) {
  circles_bytes result;
  circles_error err;
  if (!circles_base("", params.data, params.len, &result, &err)) return circles_fail_error(&err);

  char when[sizeof "2026-11-23T14:05:09Z"], line[4 * 6 * MAX_TEXT], *at = line;
  time_t now = time(NULL);
  const struct tm *utc = gmtime(&now);
  if (utc == NULL || strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", utc) == 0) when[0] = 0;
  at += sprintf(at, "{\"at\":\"%s\",\"caller\":\"", when);
  at = quoted(at, circles_id(circles_caller()));
  at += sprintf(at, "\",\"name\":\"");
  at = quoted(at, circles_name(circles_caller()));
  at += sprintf(at, "\",\"entry\":\"");
  at = quoted(at, circles_entry_name());
  at += sprintf(at, "\",\"code\":\"done\",\"bytes\":%zu}\n", result.len);
  if (!circles_append(circles_target(), file, line, (size_t)(at - line), &err)) return circles_fail_error(&err);
  return circles_ok(result.data, result.len);
}
