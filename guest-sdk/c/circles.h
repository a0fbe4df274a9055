/* circles.h: what a script module in C or C++ needs to talk to its host.
 *
 * A module is a wasip1 reactor whose entries take bytes and return bytes or an
 * error (wit/script.wit, package circles:script@0.1.1). The whole of one:
 *
 *     #include <circles.h>
 *
 *     CIRCLES_ENTRY(run) {
 *       circles_bytes card;
 *       circles_error err;
 *       if (!circles_read(circles_caller(), "/card.txt", &card, &err))
 *         return circles_fail_error(&err);
 *       return circles_ok(card.data, card.len);
 *     }
 *
 *     clang --target=wasm32-wasi -mexec-model=reactor -Os -I guest-sdk/c \
 *       module.c guest-sdk/c/circles.c -o module.wasm
 *
 * An entry sees `params`, a circles_bytes that is the host's until the entry
 * returns, and ends with circles_ok, circles_fail or circles_fail_error, which
 * copy what they are given.
 *
 * The target's files are also there through stdio, at "/". Both ways go through
 * the same policy and the same transaction.
 *
 * Memory: what a function hands out belongs to the caller, who frees it with
 * the function named beside it; NULL-and-zero values may always be freed. A
 * module that runs once per instance, as circles hosts run them, may leave all
 * of it to the end of the instance. When memory runs out the module traps: the
 * script fails, and nothing that it wrote remains.
 *
 * The layouts below are those of the Canonical ABI
 * (https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md)
 * for package circles:host@0.1.2, wit/deps/circles-host/host.wit.
 */
#ifndef CIRCLES_H
#define CIRCLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes with a length; not NUL-terminated unless a function says so. */
typedef struct {
  uint8_t *data;
  size_t len;
} circles_bytes;

/* Frees bytes that a function of this header handed out, and empties b. */
void circles_bytes_free(circles_bytes *b);

/* Why an operation did not succeed; contexts.error-code in host.wit. */
typedef enum {
  CIRCLES_NOT_FOUND = 0,     /* no such file, or one that the policy hides */
  CIRCLES_DENIED = 1,        /* the policy of the context's owner does not allow it */
  CIRCLES_EXISTS = 2,        /* there is something with that name */
  CIRCLES_NOT_DIRECTORY = 3, /* a path component is not a directory, or a file was expected */
  CIRCLES_IS_DIRECTORY = 4,  /* a directory, where a file was expected */
  CIRCLES_NOT_EMPTY = 5,     /* a directory that has entries */
  CIRCLES_INVALID = 6,       /* a path or argument that can never be right */
  CIRCLES_TOO_LARGE = 7,     /* more than a limit or quota allows */
  CIRCLES_READ_ONLY = 8,     /* the context cannot be changed by this script */
  CIRCLES_UNAVAILABLE = 9,   /* the context's host cannot be reached now */
  CIRCLES_IO = 10,           /* the host failed */
  CIRCLES_CONFLICT = 11,     /* the record is not as it was expected to be */
  CIRCLES_VIOLATES = 12,     /* a value is not as the collection's schema says; see circles_next_violation */
  CIRCLES_FAILED = 13        /* the module or script that was called failed; the message is its own */
} circles_code;

/* An error with a sentence for the person who reads the receipt. Free it with
 * circles_error_free, or pass it on with circles_fail_error. */
typedef struct {
  circles_code code;
  circles_bytes message; /* UTF-8 */
} circles_error;

void circles_error_free(circles_error *e);

/* One way in which a value is not as its collection's schema says. Both lie in the
 * message of the error, and are as good as that is. */
typedef struct {
  const char *path; /* where in the value, a JSON Pointer (RFC 6901); empty for all of it */
  size_t path_len;
  const char *reason;
  size_t reason_len;
} circles_violation;

/* Steps to the next violation that e tells of: v is all zero at first. Returns false
 * when there is no other, as for an error that is not CIRCLES_VIOLATES. */
bool circles_next_violation(const circles_error *e, circles_violation *v);

/* ---- Contexts ---------------------------------------------------------- */

/* Which peer's context: a name, not a handle, so there is nothing to close. */
typedef enum {
  CIRCLES_CALLER, /* the peer that sent the script: what it lent, read-only */
  CIRCLES_TARGET  /* the peer in whose context the script runs */
} circles_context;

static inline circles_context circles_caller(void) { return CIRCLES_CALLER; }
static inline circles_context circles_target(void) { return CIRCLES_TARGET; }

/* The peer's identity, "did:key:z6Mk…". Free with circles_bytes_free. */
circles_bytes circles_id(circles_context c);

/* The name that the target's owner gave this peer; empty for a stranger. Free
 * with circles_bytes_free. */
circles_bytes circles_name(circles_context c);

/* The operations return true when they succeeded. When they return false, *err
 * says why; err may be NULL, and then the reason is dropped. Paths are UTF-8,
 * NUL-terminated, slash-separated, from the context's root. */

/* The whole contents of a file; a NUL that len does not count follows them.
 * Free with circles_bytes_free. */
bool circles_read(circles_context c, const char *path, circles_bytes *out, circles_error *err);

/* Up to length bytes from offset; fewer at the end of the file, none beyond
 * it. Free with circles_bytes_free. */
bool circles_read_at(circles_context c, const char *path, uint64_t offset, uint32_t length,
                     circles_bytes *out, circles_error *err);

/* Replaces a file, or makes one; directories on the way must be there. */
bool circles_write(circles_context c, const char *path, const void *data, size_t len, circles_error *err);

/* Adds to the end of a file, or makes one. */
bool circles_append(circles_context c, const char *path, const void *data, size_t len, circles_error *err);

bool circles_make_directory(circles_context c, const char *path, circles_error *err);

/* Removes a file, a link or an empty directory. */
bool circles_remove(circles_context c, const char *path, circles_error *err);

typedef enum { CIRCLES_FILE = 0, CIRCLES_DIRECTORY = 1, CIRCLES_LINK = 2, CIRCLES_OTHER = 3 } circles_kind;

typedef struct {
  circles_kind kind;
  uint64_t size;     /* bytes; 0 for a directory */
  uint64_t modified; /* milliseconds since 1970-01-01T00:00:00Z */
} circles_stat;

bool circles_stat_path(circles_context c, const char *path, circles_stat *out, circles_error *err);

/* One name in a directory. */
typedef struct {
  circles_bytes name;
  circles_kind kind;
} circles_entry;

typedef struct {
  circles_entry *data;
  size_t len;
} circles_entries;

/* The entries of a directory, in name order. Free with circles_entries_free. */
bool circles_list(circles_context c, const char *path, circles_entries *out, circles_error *err);

void circles_entries_free(circles_entries *l);

/* ---- Records ----------------------------------------------------------- */

/* Values by key, in collections: wit/deps/circles-host/host.wit says which names
 * and keys there may be. Both are UTF-8, NUL-terminated. */

/* The value of a record; a NUL that len does not count follows it. Free with
 * circles_bytes_free. */
bool circles_get_record(circles_context c, const char *collection, const char *key, circles_bytes *out,
                        circles_error *err);

/* Makes a record, or replaces its value. */
bool circles_put_record(circles_context c, const char *collection, const char *key, const void *value, size_t len,
                        circles_error *err);

/* Puts a record if its value is expected, and for NULL if there is no such record;
 * otherwise the error is CIRCLES_CONFLICT, and nothing changes. */
bool circles_replace_record(circles_context c, const char *collection, const char *key, const void *expected,
                            size_t expected_len, const void *value, size_t len, circles_error *err);

bool circles_delete_record(circles_context c, const char *collection, const char *key, circles_error *err);

typedef struct {
  circles_bytes key;
  circles_bytes value;
  bool denied; /* there is this record, and the policy does not let the script see what is in it */
} circles_record;

typedef struct {
  circles_record *data;
  size_t len;
  circles_bytes next; /* the key to go on from, as start; empty at the end */
} circles_records;

/* Records whose keys begin with prefix and are not less than start, in the order
 * of their bytes; either may be "". At most limit of them, or, with 0, as many as
 * the host gives at once. Free with circles_records_free. */
bool circles_list_records(circles_context c, const char *collection, const char *start, const char *prefix,
                          uint32_t limit, circles_records *out, circles_error *err);

/* Records that a query is true of, a JSON text that host.wit describes. start is "",
 * or the next of the page before; limit as above. Free with circles_records_free. */
bool circles_query_records(circles_context c, const char *collection, const char *query, const char *start,
                           uint32_t limit, circles_records *out, circles_error *err);

void circles_records_free(circles_records *l);

/* ---- Other modules and scripts ------------------------------------------ */

/* Names are UTF-8, NUL-terminated. What failed by itself is CIRCLES_FAILED. Results
 * are freed with circles_bytes_free; a NUL that len does not count follows them. */

/* Runs an entry of another module of the target's context, in the same transaction;
 * "" is the entry run. */
bool circles_call(const char *module, const char *entry, const void *params, size_t len, circles_bytes *out,
                  circles_error *err);

/* Runs an entry of what this module stands before, the next of its chain or the layer
 * below; "" is the entry that this one was entered by. */
bool circles_base(const char *entry, const void *params, size_t len, circles_bytes *out, circles_error *err);

/* The entry that was asked for: a module of a chain that lacks it is entered by run.
 * Free with circles_bytes_free. */
circles_bytes circles_entry_name(void);

/* Sends a script from the target's peer to another one: a did:key, or the name that the
 * target's owner gave it. logic is a module's name, or "sha256:" and a digest in hex; ""
 * is the entry run. */
bool circles_send(circles_context c, const char *to, const char *logic, const char *entry, const void *params,
                  size_t len, circles_bytes *out, circles_error *err);

/* ---- Log --------------------------------------------------------------- */

typedef enum { CIRCLES_DEBUG = 0, CIRCLES_INFO = 1, CIRCLES_WARN = 2, CIRCLES_ERROR = 3 } circles_level;

/* Adds a line to the log that is kept with the receipt. message is UTF-8 and
 * NUL-terminated; the host cuts what is over its limit. */
void circles_log(circles_level level, const char *message);

/* ---- Entries ----------------------------------------------------------- */

/* What an entry returns; made by the functions below only. */
typedef struct circles_result circles_result;

/* The entry succeeded with these bytes, which are copied. */
circles_result *circles_ok(const void *data, size_t len);

/* The entry failed: the script fails with this sentence, and nothing that it
 * wrote remains. message is UTF-8, NUL-terminated, and copied. */
circles_result *circles_fail(const char *message);

/* The entry failed as a host function did; frees e. */
circles_result *circles_fail_error(circles_error *e);

/* For CIRCLES_ENTRY: frees params and what the entry before this one returned. */
void circles__begin(void);
void circles__end(circles_bytes params);

/* Defines an entry. name is both a C identifier and, as it stands, the export;
 * for a kebab-case export use CIRCLES_ENTRY_AS(sign_twice, "sign-twice"). */
#define CIRCLES_ENTRY(name) CIRCLES_ENTRY_AS(name, #name)

#ifdef __cplusplus
#define CIRCLES__C extern "C"
#else
#define CIRCLES__C
#endif

#define CIRCLES_ENTRY_AS(ident, export)                                                           \
  static circles_result *circles__entry_##ident(circles_bytes params);                            \
  CIRCLES__C __attribute__((export_name(export), used)) circles_result *circles__export_##ident(  \
      uint8_t *ptr, size_t len) {                                                                 \
    circles_bytes params = {ptr, len};                                                            \
    circles__begin();                                                                             \
    circles_result *r = circles__entry_##ident(params);                                           \
    circles__end(params);                                                                         \
    return r;                                                                                     \
  }                                                                                               \
  static circles_result *circles__entry_##ident(__attribute__((unused)) circles_bytes params)

/* Puts the file that `path` names into the module as its manifest, the custom
 * section "circles-manifest" (modules/README.md). The path is looked up in the
 * directories of -I, then from where the compiler runs. */
#define CIRCLES_MANIFEST(path)                                        \
  __asm__(".section \".custom_section.circles-manifest\",\"\",@\n" \
          ".incbin \"" path "\"\n"                                    \
          ".text\n")

#ifdef __cplusplus
}
#endif

#endif
