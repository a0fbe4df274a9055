/* inventory: tells how many there are of one thing.
 *
 *   stock  tea  →  {"item":"tea","stock":12}
 *   run         is stock
 *
 * The stock of an item is the number in the file /stock/ITEM, which the owner
 * writes as they like; nothing is listed, so whoever asks must know what for.
 */
#include <circles.h>

#include <stdio.h>
#include <string.h>

CIRCLES_MANIFEST("manifest.json");

enum { MAX_ITEM = 40 }; /* bytes of an item's name */

static circles_result *stock(circles_bytes params) {
  char item[MAX_ITEM + 1], path[sizeof "/stock/" + MAX_ITEM], out[128];
  size_t n = params.len;
  while (n > 0 && (params.data[n - 1] == '\n' || params.data[n - 1] == ' ')) n--;
  if (n == 0 || n > MAX_ITEM) return circles_fail("params: want the name of an item, at most 40 of a-z, 0-9 and -");
  for (size_t i = 0; i < n; i++) { /* a name, and never a path */
    uint8_t c = params.data[i];
    if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
      return circles_fail("params: want the name of an item, at most 40 of a-z, 0-9 and -");
    item[i] = (char)c;
  }
  item[n] = 0;
  snprintf(path, sizeof path, "/stock/%s", item);
  circles_bytes file;
  circles_error err;
  if (!circles_read(circles_target(), path, &file, &err)) {
    if (err.code != CIRCLES_NOT_FOUND) return circles_fail_error(&err);
    circles_error_free(&err);
    return circles_fail("there is no such item");
  }
  /* The owner's file may have anything in it: a number of at most nine digits counts. */
  long count = 0;
  size_t digits = 0;
  while (digits < file.len && digits < 9 && file.data[digits] >= '0' && file.data[digits] <= '9')
    count = count * 10 + (file.data[digits++] - '0');
  if (digits == 0 || (digits < file.len && file.data[digits] != '\n')) return circles_fail("the stock of this item is not a number");
  int len = snprintf(out, sizeof out, "{\"item\":\"%s\",\"stock\":%ld}", item, count);
  return circles_ok(out, (size_t)len);
}

CIRCLES_ENTRY_AS(entry_run, "run") { return stock(params); }

CIRCLES_ENTRY_AS(entry_stock, "stock") { return stock(params); }
