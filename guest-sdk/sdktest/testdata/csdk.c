/* csdk puts guest-sdk/c to its tests, which are in ../c_test.go. It is built by
 * build.sh beside it, and committed, so that the tests need no C compiler. */
#include <circles.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

CIRCLES_ENTRY(run) { return circles_ok(params.data, params.len); }

/* Says "OP PATH [TEXT]" of the target, or with OP in capitals of the caller. */
CIRCLES_ENTRY(op) {
  char line[256], out[2048];
  size_t n = 0;
  if (params.len >= sizeof line) return circles_fail("params: too long");
  memcpy(line, params.data, params.len);
  line[params.len] = 0;
  char *op = strtok(line, " "), *path = strtok(NULL, " "), *text = strtok(NULL, "");
  if (op == NULL || path == NULL) return circles_fail("params: want OP PATH [TEXT]");
  if (text == NULL) text = "";
  circles_context c = op[0] >= 'a' ? circles_target() : circles_caller();
  op[0] |= 0x20;

  circles_error err;
  bool ok = true;
  if (strcmp(op, "read") == 0) {
    circles_bytes b;
    if ((ok = circles_read(c, path, &b, &err))) {
      /* The NUL behind it is there even when the file is empty. */
      n = (size_t)snprintf(out, sizeof out, "%zu %s", b.len, (char *)b.data);
      circles_bytes_free(&b);
    }
  } else if (strcmp(op, "part") == 0) {
    circles_bytes b;
    if ((ok = circles_read_at(c, path, (uint64_t)strtoull(text, NULL, 10), 3, &b, &err))) {
      n = (size_t)snprintf(out, sizeof out, "%zu %s", b.len, (char *)b.data);
      circles_bytes_free(&b);
    }
  } else if (strcmp(op, "write") == 0) {
    ok = circles_write(c, path, text, strlen(text), &err);
  } else if (strcmp(op, "append") == 0) {
    ok = circles_append(c, path, text, strlen(text), &err);
  } else if (strcmp(op, "mkdir") == 0) {
    ok = circles_make_directory(c, path, &err);
  } else if (strcmp(op, "remove") == 0) {
    ok = circles_remove(c, path, &err);
  } else if (strcmp(op, "stat") == 0) {
    circles_stat s;
    if ((ok = circles_stat_path(c, path, &s, &err)))
      n = (size_t)snprintf(out, sizeof out, "kind %d size %llu modified %llu", s.kind, (unsigned long long)s.size,
                           (unsigned long long)s.modified);
  } else if (strcmp(op, "list") == 0) {
    circles_entries l;
    if ((ok = circles_list(c, path, &l, &err))) {
      for (size_t i = 0; i < l.len && n < sizeof out; i++)
        n += (size_t)snprintf(out + n, sizeof out - n, "%.*s:%d ", (int)l.data[i].name.len, (char *)l.data[i].name.data,
                              l.data[i].kind);
      circles_entries_free(&l);
    }
  } else if (strcmp(op, "who") == 0) {
    circles_bytes id = circles_id(c), name = circles_name(c);
    n = (size_t)snprintf(out, sizeof out, "%s %s", (char *)id.data, (char *)name.data);
    circles_bytes_free(&id);
    circles_bytes_free(&name);
  } else if (strcmp(op, "ignore") == 0) {
    ok = true; /* an error that nobody asks for is dropped, and freed */
    circles_remove(c, path, NULL);
  } else {
    return circles_fail("params: no such operation");
  }
  if (!ok) {
    if (strcmp(text, "pass on") == 0) return circles_fail_error(&err);
    n = (size_t)snprintf(out, sizeof out, "code %d, %s a message", err.code, err.message.len ? "with" : "without");
    circles_error_free(&err);
  }
  return circles_ok(out, n);
}

/* Says "OP COLLECTION KEY [VALUE]" of the target's records, or in capitals of the
 * caller's; "list COLLECTION START PREFIX LIMIT", where "-" is nothing. */
CIRCLES_ENTRY(record) {
  char line[4096], out[8192];
  size_t n = 0;
  if (params.len >= sizeof line) return circles_fail("params: too long");
  memcpy(line, params.data, params.len);
  line[params.len] = 0;
  char *op = strtok(line, " "), *collection = strtok(NULL, " "), *key = strtok(NULL, " ");
  if (key == NULL) return circles_fail("params: want OP COLLECTION KEY");
  circles_context c = op[0] >= 'a' ? circles_target() : circles_caller();
  op[0] |= 0x20;
  circles_error err;
  bool ok;
  if (strcmp(op, "get") == 0) {
    circles_bytes b;
    if ((ok = circles_get_record(c, collection, key, &b, &err))) {
      n = (size_t)snprintf(out, sizeof out, "%zu %s", b.len, (char *)b.data);
      circles_bytes_free(&b);
    }
  } else if (strcmp(op, "put") == 0) {
    char *value = strtok(NULL, "");
    if (value == NULL) value = "";
    ok = circles_put_record(c, collection, key, value, strlen(value), &err);
  } else if (strcmp(op, "delete") == 0) {
    ok = circles_delete_record(c, collection, key, &err);
  } else {
    char *prefix = strtok(NULL, " "), *limit = strtok(NULL, " ");
    if (limit == NULL) return circles_fail("params: want list COLLECTION START PREFIX LIMIT");
    if (strcmp(key, "-") == 0) key = "";
    if (strcmp(prefix, "-") == 0) prefix = "";
    circles_records l;
    if ((ok = circles_list_records(c, collection, key, prefix, (uint32_t)strtoul(limit, NULL, 10), &l, &err))) {
      for (size_t i = 0; i < l.len && n < sizeof out; i++)
        n += (size_t)snprintf(out + n, sizeof out - n, "%s=%s ", (char *)l.data[i].key.data,
                              l.data[i].denied ? "(denied)" : (char *)l.data[i].value.data);
      n += (size_t)snprintf(out + n, sizeof out - n, "next:%s", (char *)l.next.data);
      circles_records_free(&l);
    }
  }
  if (!ok) {
    n = (size_t)snprintf(out, sizeof out, "code %d, %s a message", err.code, err.message.len ? "with" : "without");
    circles_error_free(&err);
  }
  return circles_ok(out, n);
}

CIRCLES_ENTRY_AS(two_words, "two-words") {
  circles_log(CIRCLES_WARN, "from C");
  return circles_ok(NULL, 0);
}
