/* album: takes pictures into a family album.
 *
 *   upload  "beach.jpg\n" and the picture  →  {"name":"beach.jpg","bytes":1234}
 *   run                                       is upload
 *
 * The first line of the params is the picture's name, all that follows it the
 * picture, which becomes /album/NAME. A picture that is there already is never
 * replaced.
 */
#include <circles.h>

#include <stdio.h>
#include <string.h>

CIRCLES_MANIFEST("manifest.json");

enum { MAX_NAME = 80 }; /* bytes of a picture's name */

#define WANT "params: want a line with the picture's name, of a-z, 0-9, - and one dot, and then the picture"

static circles_result *upload(circles_bytes params) {
  char path[sizeof "/album/" + MAX_NAME], out[160];
  const uint8_t *end = params.len ? memchr(params.data, '\n', params.len) : NULL;
  size_t n = end ? (size_t)(end - params.data) : 0;
  if (n == 0 || n > MAX_NAME) return circles_fail(WANT);
  int dots = 0;
  for (size_t i = 0; i < n; i++) { /* a name, and never a path or a hidden file */
    uint8_t c = params.data[i];
    if (c == '.' && i > 0 && i + 1 < n && dots++ == 0) continue;
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-')) return circles_fail(WANT);
  }
  size_t size = params.len - n - 1;
  if (size == 0) return circles_fail(WANT);
  snprintf(path, sizeof path, "/album/%.*s", (int)n, (const char *)params.data);

  circles_context here = circles_target();
  circles_error err;
  circles_stat found;
  if (circles_stat_path(here, path, &found, &err)) return circles_fail("there is a picture of that name; choose another");
  if (err.code != CIRCLES_NOT_FOUND) return circles_fail_error(&err);
  circles_error_free(&err);
  if (!circles_make_directory(here, "/album", &err)) {
    if (err.code != CIRCLES_EXISTS) return circles_fail_error(&err);
    circles_error_free(&err);
  }
  if (!circles_write(here, path, end + 1, size, &err)) return circles_fail_error(&err);
  int len = snprintf(out, sizeof out, "{\"name\":\"%.*s\",\"bytes\":%lu}", (int)n, (const char *)params.data, (unsigned long)size);
  return circles_ok(out, (size_t)len);
}

CIRCLES_ENTRY_AS(entry_run, "run") { return upload(params); }

CIRCLES_ENTRY_AS(entry_upload, "upload") { return upload(params); }
