/* guestbook: visitors sign, and bring a visiting card.
 *
 *   sign  {"message": "…"}  →  {"entry": 3, "text": "3. alice: … (Alice Liddell)"}
 *   read                    →  {"entries": 3, "text": "1. …\n2. …\n3. …\n"}
 *   run                        is sign
 *
 * The book is /guestbook/entries.txt in the target, one line an entry, reached
 * through stdio and so through WASI; /guestbook/count beside it has the number
 * of the last entry. The card is the first line of /card.txt in the
 * caller, if the caller lent it.
 *
 * What visitors write is hostile: a line break in a message would forge
 * another's entry, a control character would reach the terminal of the owner
 * who reads the book. Both become spaces.
 */
#include <circles.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

CIRCLES_MANIFEST("manifest.json");

#define DIR "/guestbook"
#define ENTRIES DIR "/entries.txt"
#define COUNT DIR "/count"

enum {
  MAX_MESSAGE = 1000,    /* bytes of a message, decoded */
  MAX_CARD = 120,        /* bytes of a card that are shown */
  MAX_NAME = 80,         /* bytes of a name or identity */
  MAX_READ = 64 << 10,   /* bytes of the book that read returns: its end */
  MAX_COUNT = 999999999, /* entries; keeps the number in nine digits */
};

#define WANT "params: want {\"message\": \"…\"}, at most 1000 bytes of UTF-8"

/* ---- Text ---- */

/* A buffer that grows; out of memory traps, like all of circles.h. */
typedef struct {
  char *s;
  size_t len, cap;
} text;

static void put(text *t, const char *s, size_t n) {
  if (t->len + n + 1 > t->cap) {
    t->cap = (t->len + n + 1) * 2;
    t->s = realloc(t->s, t->cap);
    if (t->s == NULL) __builtin_trap();
  }
  if (n) memcpy(t->s + t->len, s, n);
  t->len += n;
  t->s[t->len] = 0;
}

static void puts_to(text *t, const char *s) { put(t, s, strlen(s)); }

static void put_number(text *t, long n) {
  char digits[12], *p = digits + sizeof digits;
  do *--p = (char)('0' + n % 10);
  while (n /= 10);
  put(t, p, (size_t)(digits + sizeof digits - p));
}

/* The length of the UTF-8 sequence at p, or 0 if it is not one
 * (https://www.unicode.org/versions/Unicode15.0.0/ch03.pdf, table 3-7). */
static size_t sequence(const uint8_t *p, const uint8_t *end) {
  if (p[0] < 0x80) return 1;
  size_t n = p[0] >= 0xC2 && p[0] <= 0xDF ? 2 : p[0] >= 0xE0 && p[0] <= 0xEF ? 3 : p[0] >= 0xF0 && p[0] <= 0xF4 ? 4 : 0;
  if (n == 0 || (size_t)(end - p) < n) return 0;
  for (size_t i = 1; i < n; i++)
    if ((p[i] & 0xC0) != 0x80) return 0;
  if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F)) return 0; /* overlong; surrogate */
  if ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F)) return 0; /* overlong; beyond U+10FFFF */
  return n;
}

/* Whether the sequence at p can break a line, or move what is around it: C0, C1,
 * U+2028 and U+2029, and the bidirectional embeddings, overrides and isolates. */
static bool disturbs(const uint8_t *p, size_t n) {
  if (n == 1) return p[0] < 0x20 || p[0] == 0x7F;
  if (n == 2) return p[0] == 0xC2 && p[1] < 0xA0;
  if (n != 3 || p[0] != 0xE2) return false;
  return (p[1] == 0x80 && p[2] >= 0xA8 && p[2] <= 0xAE) || (p[1] == 0x81 && p[2] >= 0xA6 && p[2] <= 0xA9);
}

/* Adds at most max bytes of foreign text as one harmless stretch of a line. */
static void put_line(text *t, const uint8_t *s, size_t len, size_t max) {
  const uint8_t *end = s + len;
  size_t start = t->len;
  bool space = false; /* seen, and written only if something follows */
  while (s < end) {
    size_t n = sequence(s, end);
    bool blank = n && (disturbs(s, n) || *s == ' ');
    if (t->len - start + (n ? n : 1) + space > max) break;
    if (!blank) {
      if (space) put(t, " ", 1);
      put(t, n ? (const char *)s : "?", n ? n : 1);
    }
    space = blank && t->len > start;
    s += n ? n : 1;
  }
}

/* Adds valid UTF-8 as a JSON string. */
static void put_json(text *t, const char *s, size_t len) {
  put(t, "\"", 1);
  for (size_t i = 0; i < len; i++) {
    uint8_t c = (uint8_t)s[i];
    if (c == '"' || c == '\\') {
      char esc[2] = {'\\', (char)c};
      put(t, esc, 2);
    } else if (c == '\n') {
      put(t, "\\n", 2);
    } else if (c < 0x20) {
      char esc[6] = {'\\', 'u', '0', '0', "01"[c >> 4], "0123456789abcdef"[c & 15]};
      put(t, esc, 6);
    } else {
      put(t, s + i, 1);
    }
  }
  put(t, "\"", 1);
}

/* ---- Params ---- */

typedef struct {
  const uint8_t *p, *end;
} reader;

static void blanks(reader *r) {
  while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r')) r->p++;
}

static bool eat(reader *r, char c) {
  blanks(r);
  if (r->p == r->end || *r->p != (uint8_t)c) return false;
  r->p++;
  return true;
}

static bool hex4(reader *r, uint32_t *out) {
  if (r->end - r->p < 4) return false;
  uint32_t v = 0;
  for (int i = 0; i < 4; i++) {
    uint8_t c = *r->p++;
    uint8_t lower = c | 0x20;
    if (c >= '0' && c <= '9') v = v << 4 | (uint32_t)(c - '0');
    else if (lower >= 'a' && lower <= 'f') v = v << 4 | (uint32_t)(lower - 'a' + 10);
    else return false;
  }
  *out = v;
  return true;
}

/* Reads a JSON string (RFC 8259, section 7) of at most max bytes, decoded. A
 * lone surrogate has no UTF-8, so it is refused; so is raw text that is not. */
static bool json_string(reader *r, text *out, size_t max) {
  if (!eat(r, '"')) return false;
  put(out, "", 0);
  while (r->p < r->end) {
    if (out->len > max) return false;
    uint8_t c = *r->p;
    if (c == '"') {
      r->p++;
      return true;
    }
    if (c < 0x20) return false;
    if (c != '\\') {
      size_t n = sequence(r->p, r->end);
      if (n == 0) return false;
      put(out, (const char *)r->p, n);
      r->p += n;
      continue;
    }
    if (++r->p == r->end) return false;
    char plain;
    switch (*r->p++) {
      case '"': plain = '"'; break;
      case '\\': plain = '\\'; break;
      case '/': plain = '/'; break;
      case 'b': plain = '\b'; break;
      case 'f': plain = '\f'; break;
      case 'n': plain = '\n'; break;
      case 'r': plain = '\r'; break;
      case 't': plain = '\t'; break;
      case 'u': {
        uint32_t v, low;
        if (!hex4(r, &v)) return false;
        if (v >= 0xDC00 && v <= 0xDFFF) return false;
        if (v >= 0xD800 && v <= 0xDBFF) {
          if (r->end - r->p < 6 || r->p[0] != '\\' || r->p[1] != 'u') return false;
          r->p += 2;
          if (!hex4(r, &low) || low < 0xDC00 || low > 0xDFFF) return false;
          v = 0x10000 + ((v - 0xD800) << 10) + (low - 0xDC00);
        }
        char u[4];
        size_t n = 0;
        if (v < 0x80) {
          u[n++] = (char)v;
        } else {
          if (v < 0x800) {
            u[n++] = (char)(0xC0 | v >> 6);
          } else {
            if (v < 0x10000) {
              u[n++] = (char)(0xE0 | v >> 12);
            } else {
              u[n++] = (char)(0xF0 | v >> 18);
              u[n++] = (char)(0x80 | (v >> 12 & 0x3F));
            }
            u[n++] = (char)(0x80 | (v >> 6 & 0x3F));
          }
          u[n++] = (char)(0x80 | (v & 0x3F));
        }
        put(out, u, n);
        continue;
      }
      default: return false;
    }
    put(out, &plain, 1);
  }
  return false;
}

/* Reads {"message": "…"}: that member, once, and no other, so that a misspelt
 * or repeated one is an error and not a surprise. */
static bool read_params(circles_bytes params, text *message) {
  reader r = {params.data, params.data + params.len};
  text key = {0};
  bool ok = eat(&r, '{') && json_string(&r, &key, 16) && key.len == 7 && memcmp(key.s, "message", 7) == 0 &&
            eat(&r, ':') && json_string(&r, message, MAX_MESSAGE) && message->len <= MAX_MESSAGE && eat(&r, '}');
  blanks(&r);
  free(key.s);
  return ok && r.p == r.end;
}

/* ---- The book ---- */

/* "guestbook: cannot WHAT: REASON" */
static circles_result *cannot(const char *what) {
  int reason = errno;
  text t = {0};
  puts_to(&t, "guestbook: cannot ");
  puts_to(&t, what);
  puts_to(&t, ": ");
  puts_to(&t, strerror(reason));
  if (reason == EACCES || reason == EPERM || reason == ENOTCAPABLE || reason == EROFS)
    puts_to(&t, "; the policy of the context's owner has to allow it");
  return circles_fail(t.s);
}

/* The number of the last entry: 0 without a book, -1 with errno set if it
 * cannot be read, -2 if it is not a number. */
static long last_entry(void) {
  FILE *f = fopen(COUNT, "r");
  if (f == NULL) return errno == ENOENT ? 0 : -1;
  char digits[11];
  size_t n = fread(digits, 1, sizeof digits, f);
  bool failed = ferror(f);
  fclose(f);
  if (failed) return -1;
  if (n && digits[n - 1] == '\n') n--;
  long v = 0;
  for (size_t i = 0; i < n; i++) {
    if (digits[i] < '0' || digits[i] > '9') return -2;
    v = v * 10 + (digits[i] - '0');
    if (v > MAX_COUNT) return -2;
  }
  return n ? v : -2;
}

static circles_result *bad_count(long n) {
  return n == -1 ? cannot("read " COUNT)
                 : circles_fail("guestbook: " COUNT " has no number in it; the owner can repair it: "
                                "it holds the number of the last entry in " ENTRIES);
}

/* Writes t to path. fclose is checked: it is where a full quota shows. */
static bool store(const char *path, const char *mode, const text *t) {
  FILE *f = fopen(path, mode);
  if (f == NULL) return false;
  bool ok = fwrite(t->s, 1, t->len, f) == t->len;
  return fclose(f) == 0 && ok;
}

static circles_result *sign(circles_bytes params) {
  text message = {0};
  if (!read_params(params, &message)) return circles_fail(WANT);

  circles_bytes name = circles_name(circles_caller());
  if (name.len == 0) name = circles_id(circles_caller()); /* a stranger */

  /* A visitor who lends no card may sign too; any other failure is one. */
  circles_bytes card = {0};
  circles_error err;
  if (!circles_read_at(circles_caller(), "/card.txt", 0, MAX_CARD, &card, &err) &&
      err.code != CIRCLES_NOT_FOUND && err.code != CIRCLES_DENIED)
    return circles_fail_error(&err);

  if (mkdir(DIR, 0777) != 0 && errno != EEXIST) return cannot("make " DIR);
  long n = last_entry();
  if (n < 0) return bad_count(n);
  if (n == MAX_COUNT) return circles_fail("guestbook: the book is full; its owner can archive " DIR);
  n++;

  text line = {0};
  put_number(&line, n);
  puts_to(&line, ". ");
  put_line(&line, name.data, name.len, MAX_NAME);
  puts_to(&line, ": ");
  size_t before = line.len;
  put_line(&line, (const uint8_t *)message.s, message.len, MAX_MESSAGE);
  if (line.len == before) return circles_fail("params: the message has nothing in it that can be shown");
  uint8_t *nl = card.len ? memchr(card.data, '\n', card.len) : NULL;
  text shown = {0};
  put_line(&shown, card.data, nl ? (size_t)(nl - card.data) : card.len, MAX_CARD);
  if (shown.len) {
    puts_to(&line, " (");
    put(&line, shown.s, shown.len);
    puts_to(&line, ")");
  }

  text out = {0};
  puts_to(&out, "{\"entry\":");
  put_number(&out, n);
  puts_to(&out, ",\"text\":");
  put_json(&out, line.s, line.len);
  puts_to(&out, "}");

  put(&line, "\n", 1);
  if (!store(ENTRIES, "a", &line)) return cannot("add to " ENTRIES);
  text count = {0};
  put_number(&count, n);
  put(&count, "\n", 1);
  if (!store(COUNT, "w", &count)) return cannot("write " COUNT);
  return circles_ok(out.s, out.len);
}

CIRCLES_ENTRY_AS(entry_run, "run") { return sign(params); }

CIRCLES_ENTRY_AS(entry_sign, "sign") { return sign(params); }

CIRCLES_ENTRY_AS(entry_read, "read") {
  long n = last_entry();
  if (n < 0) return bad_count(n);

  text book = {0};
  put(&book, "", 0);
  FILE *f = fopen(ENTRIES, "r");
  if (f == NULL && errno != ENOENT) return cannot("read " ENTRIES);
  if (f != NULL) {
    char *end = malloc(MAX_READ);
    if (end == NULL) __builtin_trap();
    long size = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    bool whole = size <= MAX_READ;
    if (size < 0 || fseek(f, whole ? 0 : size - MAX_READ, SEEK_SET) != 0) return cannot("read " ENTRIES);
    size_t got = fread(end, 1, MAX_READ, f);
    if (ferror(f)) return cannot("read " ENTRIES);
    fclose(f);
    char *from = end;
    if (!whole) { /* start with a whole line */
      char *nl = memchr(end, '\n', got);
      from = nl ? nl + 1 : end + got;
    }
    /* The owner may have edited the book, so its text is foreign too. */
    while (from < end + got) {
      char *nl = memchr(from, '\n', (size_t)(end + got - from));
      char *stop = nl ? nl : end + got;
      put_line(&book, (const uint8_t *)from, (size_t)(stop - from), MAX_READ);
      put(&book, "\n", 1);
      from = stop + 1;
    }
  }

  text out = {0};
  puts_to(&out, "{\"entries\":");
  put_number(&out, n);
  puts_to(&out, ",\"text\":");
  put_json(&out, book.s, book.len);
  puts_to(&out, "}");
  return circles_ok(out.s, out.len);
}
