/* wordcount: lines, words and bytes, as wc(1) counts them, in JSON.
 *
 *   wordcount < notes.txt       {"lines":1,"words":2,"bytes":13}
 *   wordcount /notes.txt        the same of a file
 *   echo file: /notes.txt | wordcount
 *
 * An ordinary wasip1 program: it knows stdin, stdout, arguments and files, and
 * nothing of circles. Sent as a script, its params are its stdin and its stdout
 * is the result. Scripts have no arguments, hence the third form.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#ifdef __wasm__
__asm__(".section \".custom_section.circles-manifest\",\"\",@\n"
        ".incbin \"manifest.json\"\n"
        ".text\n");
#endif

static int fail(const char *what, const char *path) {
  fprintf(stderr, "wordcount: cannot %s %s: %s\n", what, path, strerror(errno));
  return 1;
}

struct counts {
  unsigned long long lines, words, bytes;
  int in_word;
};

static void count(struct counts *c, const char *s, size_t n) {
  c->bytes += n;
  for (size_t i = 0; i < n; i++) {
    if (s[i] == '\n') c->lines++;
    int space = isspace((unsigned char)s[i]) != 0;
    if (!space && !c->in_word) c->words++;
    c->in_word = !space;
  }
}

int main(int argc, char **argv) {
  static char buf[1 << 16];
  static char named[4096];
  const char *path = argc > 1 ? argv[1] : NULL;
  FILE *f = stdin;
  struct counts c = {0};
  size_t n;

  if (argc > 2) {
    fputs("wordcount: want at most one file\n", stderr);
    return 2;
  }
  if (path == NULL) {
    /* The beginning of stdin says whether it is the text or names a file. */
    n = fread(buf, 1, sizeof named, stdin);
    if (n >= 6 && memcmp(buf, "file: ", 6) == 0) {
      char *end = memchr(buf, '\n', n);
      if (end == NULL && n == sizeof named) {
        fputs("wordcount: the file's name is too long\n", stderr);
        return 2;
      }
      *(end ? end : buf + n) = 0;
      path = strcpy(named, buf + 6);
    } else {
      count(&c, buf, n);
    }
  }
  if (path != NULL && (f = fopen(path, "r")) == NULL) return fail("open", path);
  while ((n = fread(buf, 1, sizeof buf, f)) > 0) count(&c, buf, n);
  if (ferror(f)) return fail("read", path ? path : "stdin");
  if (printf("{\"lines\":%llu,\"words\":%llu,\"bytes\":%llu}\n", c.lines, c.words, c.bytes) < 0 || fflush(stdout) != 0)
    return fail("write", "stdout");
  return 0;
}
