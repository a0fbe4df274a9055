/* notes keeps what it is given as records of its target: a module that uses all
 * that there is for records, in the tests of hosts and in their guides. */
#include <circles.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

CIRCLES_MANIFEST("notes.json");

/* The params as a C string, for good. */
static char *text(circles_bytes params) {
  char *s = calloc(params.len + 1, 1);
  if (s == NULL) abort();
  if (params.len) memcpy(s, params.data, params.len);
  return s;
}

CIRCLES_ENTRY(put) {
  char *key = text(params), *value = strchr(key, ' ');
  circles_error err;
  if (value == NULL) return circles_fail("params: want KEY VALUE");
  *value++ = 0;
  if (!circles_put_record(circles_target(), "notes", key, value, strlen(value), &err)) return circles_fail_error(&err);
  return circles_ok(NULL, 0);
}

CIRCLES_ENTRY(get) {
  circles_bytes value;
  circles_error err;
  if (!circles_get_record(circles_target(), "notes", text(params), &value, &err)) return circles_fail_error(&err);
  return circles_ok(value.data, value.len);
}

CIRCLES_ENTRY(drop) {
  circles_error err;
  if (!circles_delete_record(circles_target(), "notes", text(params), &err)) return circles_fail_error(&err);
  return circles_ok(NULL, 0);
}

/* Two at a time, to go from page to page. */
CIRCLES_ENTRY(all) {
  char *prefix = text(params), *start = "", out[65536];
  size_t n = 0;
  do {
    circles_records page;
    circles_error err;
    if (!circles_list_records(circles_target(), "notes", start, prefix, 2, &page, &err)) return circles_fail_error(&err);
    for (size_t i = 0; i < page.len && n < sizeof out; i++)
      n += (size_t)snprintf(out + n, sizeof out - n, "%s: %s\n", (char *)page.data[i].key.data,
                            page.data[i].denied ? "(not to be seen)" : (char *)page.data[i].value.data);
    start = (char *)page.next.data;
  } while (*start && n < sizeof out);
  return circles_ok(out, n < sizeof out ? n : sizeof out);
}

CIRCLES_ENTRY(card) {
  circles_bytes card, id = circles_id(circles_caller());
  circles_error err;
  if (!circles_get_record(circles_caller(), "cards", "home", &card, &err)) return circles_fail_error(&err);
  if (!circles_put_record(circles_target(), "notes", (char *)id.data, card.data, card.len, &err))
    return circles_fail_error(&err);
  return circles_ok(card.data, card.len);
}
