// The C++ guest of sdktest's suite, which says what each entry does.
#include <circles.hpp>

#include <cctype>
#include <cstring>

using circles::context;
using circles::result;
using text = result<std::string>;

static circles::error own(std::string message) { return {CIRCLES_INVALID, std::move(message)}; }

// The target, or the caller if the word is in capitals.
static context of(const std::string &word) {
  return !word.empty() && std::isupper(static_cast<unsigned char>(word[0])) ? circles::caller() : circles::target();
}

static std::vector<std::string> split(std::string_view s, size_t most) {
  std::vector<std::string> words;
  while (words.size() + 1 < most) {
    auto n = s.find(' ');
    if (n == s.npos) break;
    words.emplace_back(s.substr(0, n));
    s.remove_prefix(n + 1);
  }
  words.emplace_back(s);
  words.resize(most);
  return words;
}

static text answer(text r, bool pass_on) {
  if (r || pass_on) return r;
  auto out = "code " + std::to_string(r.error().code) + ", " + (r.error().message.empty() ? "without" : "with") + " a message";
  for (auto &v : r.error().violations()) out += "; " + v.path + ": " + v.reason;
  return out;
}

static text said(result<circles::bytes> r) {
  if (!r) return r.error();
  return std::to_string(r->size()) + " " + std::string(r->view());
}

static uint32_t number(const std::string &s) { return static_cast<uint32_t>(std::strtoul(s.c_str(), nullptr, 10)); }

static text none(result<void> r) {
  if (!r) return r.error();
  return std::string();
}

static text run(std::string_view params) { return std::string(params); }

static text op(std::string_view params) {
  auto w = split(params, 3);
  auto c = of(w[0]);
  const std::string &path = w[1], &rest = w[2];
  for (auto &ch : w[0]) ch = static_cast<char>(std::tolower(static_cast<unsigned char>(ch)));
  text out = std::string();
  if (w[0] == "read") {
    out = said(c.read(path));
  } else if (w[0] == "part") {
    out = said(c.read_at(path, std::strtoull(rest.c_str(), nullptr, 10), 3));
  } else if (w[0] == "write") {
    out = none(c.write(path, rest));
  } else if (w[0] == "append") {
    out = none(c.append(path, rest));
  } else if (w[0] == "mkdir") {
    out = none(c.make_directory(path));
  } else if (w[0] == "remove") {
    out = none(c.remove(path));
  } else if (w[0] == "stat") {
    auto s = c.stat(path);
    out = s ? text("kind " + std::to_string(s->kind) + " size " + std::to_string(s->size) + " modified " + std::to_string(s->modified))
            : text(s.error());
  } else if (w[0] == "list") {
    auto l = c.list(path);
    if (l)
      for (auto &e : *l) *out += e.name + ":" + std::to_string(e.kind) + " ";
    else
      out = l.error();
  } else if (w[0] == "who") {
    out = c.id() + " " + c.name();
  } else {
    return own("params: no such operation");
  }
  return answer(std::move(out), rest == "pass on");
}

static text record(std::string_view params) {
  auto w = split(params, 4);
  auto c = of(w[0]);
  for (auto &ch : w[0]) ch = static_cast<char>(std::tolower(static_cast<unsigned char>(ch)));
  text out = std::string();
  if (w[0] == "get") {
    out = said(c.get_record(w[1], w[2]));
  } else if (w[0] == "put") {
    out = none(c.put_record(w[1], w[2], w[3]));
  } else if (w[0] == "delete") {
    out = none(c.delete_record(w[1], w[2]));
  } else if (w[0] == "make") {
    out = none(c.replace_record(w[1], w[2], std::nullopt, w[3]));
  } else if (w[0] == "replace") {
    auto more = split(w[3], 2);
    out = none(c.replace_record(w[1], w[2], more[0], more[1]));
  } else {
    auto more = split(w[3], 2);
    for (auto *s : {&w[2], &more[0]})
      if (*s == "-") s->clear();
    auto page = w[0] == "query" ? c.query_records(w[1], more[1], w[2], number(more[0]))
                                : c.list_records(w[1], w[2], more[0], number(more[1]));
    if (page) {
      for (auto &r : page->records) *out += r.key + "=" + r.value.value_or("(denied)") + " ";
      *out += "next:" + page->next;
    } else {
      out = page.error();
    }
  }
  return answer(std::move(out), false);
}

static text others(std::string_view params) {
  auto w = split(params, 5);
  auto c = of(w[0]);
  w[0][0] = static_cast<char>(std::tolower(static_cast<unsigned char>(w[0][0])));
  if (w[3] == "-") w[3].clear();
  if (w[0] == "call") return answer(said(circles::call(w[1], w[3], w[4])), false);
  if (w[0] == "base") return answer(said(circles::base(w[3], w[4])), false);
  if (w[0] == "send") return answer(said(c.send(w[1], w[2], w[3], w[4])), false);
  return circles::entry_name();
}

static text queries(std::string_view) {
  auto all = circles::target();
  for (int i = 0; i < 25; i++) {
    auto n = std::to_string(i);
    auto r = all.put_record("found", (i < 10 ? "0" : "") + n, "{\"n\":" + n + "}");
    if (!r) return r.error();
  }
  const char *query = R"({"where":{"and":[{"field":"/n","from":5,"below":20},{"or":[{"field":"/n","above":8},{"field":"/n","equals":6}]}]},
                          "order":[{"field":"/n","descending":true}],"limit":12})";
  std::string found, start;
  do {
    auto page = all.query_records("found", query, start);
    if (!page) return page.error();
    for (auto &r : page->records) found += r.key + " ";
    start = page->next;
  } while (!start.empty());
  return found == "19 18 17 16 15 14 13 12 11 10 09 06 " ? text("ok") : own("the query finds " + found);
}

static text log_lines(std::string_view params) {
  for (auto level : {CIRCLES_DEBUG, CIRCLES_INFO, CIRCLES_WARN, CIRCLES_ERROR}) circles::log(level, std::string(params));
  return std::string();
}

static text fail(std::string_view params) {
  if (params == "trap") std::abort();
  return own(std::string(params));
}

static text large(std::string_view params) {
  constexpr size_t size = 16 << 20;
  auto byte = [](size_t part, size_t i) { return static_cast<char>(i * 7 + i / 251 + part); };
  size_t parts = std::strtoul(std::string(params).c_str(), nullptr, 10), total = 0;
  {
    std::string part(size, '\0');
    for (size_t n = 0; n < parts; n++) {
      for (size_t i = 0; i < size; i++) part[i] = byte(n, i);
      auto r = n == 0 ? circles::target().write("/large", part) : circles::target().append("/large", part);
      if (!r) return r.error();
    }
  }
  for (size_t n = 0; n < parts; n++) {
    auto got = circles::target().read_at("/large", n * size, size);
    if (!got) return got.error();
    for (size_t i = 0; i < got->size(); i++)
      if (got->view()[i] != byte(n, i)) return own("byte " + std::to_string(i) + " of part " + std::to_string(n) + " is another");
    total += got->size();
  }
  return std::to_string(total);
}

// Results, moves, and the target's files through stdio.
static text habits(std::string_view) {
  auto file = circles::target().read("/dir/file");
  if (!file || file->view() != "abcdefgh") return own("/dir/file is another");
  circles::bytes moved = *std::move(file), other;
  other = std::move(moved);
  if (other.size() != 8 || moved.size() != 0) return own("a move did not move");
  auto none = circles::target().read("/none");
  if (none || none.error().code != CIRCLES_NOT_FOUND) return own("a file that is not there");
  auto nul = circles::target().read(std::string("/dir/file\0x", 11));
  if (nul || nul.error().code != CIRCLES_INVALID) return own("a path with a NUL in it was cut");
  for (int i = 0; i < 25; i++) {
    auto key = (i < 10 ? "0" : "") + std::to_string(i);
    auto r = circles::target().put_record("many", key, std::to_string(i));
    if (!r) return r.error();
  }
  int sum = 0;
  for (std::string start;;) {
    auto page = circles::target().list_records("many", start, "1");
    if (!page) return page.error();
    for (auto &r : page->records) sum += std::atoi(r.value->c_str());
    if (page->next.empty()) break;
    start = page->next;
  }
  return sum == 145 ? text("ok") : own("the sum is " + std::to_string(sum));
}

#define RAW(module, name) extern "C" __attribute__((import_module("circles:host/" module "@0.1.2"), import_name(name)))
RAW("contexts", "target") uint32_t raw_target();
RAW("contexts", "[resource-drop]context") void raw_drop(uint32_t);
RAW("contexts", "[method]context.read") void raw_read(uint32_t, uint32_t, uint32_t, uint32_t);
RAW("contexts", "[method]context.list-records")
void raw_list(uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t);
RAW("log", "write") void raw_log(uint32_t, uint32_t, uint32_t);

static text raw(std::string_view params) {
  auto w = split(params, 10);
  uint32_t v[9];
  for (int i = 0; i < 9; i++) v[i] = static_cast<uint32_t>(std::strtoul(w[i + 1].c_str(), nullptr, 10));
  if (w[0] == "read")
    raw_read(v[0], v[1], v[2], v[3]);
  else if (w[0] == "list")
    raw_list(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]);
  else if (w[0] == "drop")
    raw_drop(v[0]);
  else if (w[0] == "log")
    raw_log(v[0], v[1], v[2]);
  else if (w[0] == "open")
    for (uint32_t i = 0; i < v[0]; i++) raw_target();
  else
    return own("params: no such function");
  return std::string();
}

CIRCLES_ENTRY_CPP(run, "run", run)
CIRCLES_ENTRY_CPP(op, "op", op)
CIRCLES_ENTRY_CPP(record, "record", record)
CIRCLES_ENTRY_CPP(others, "others", others)
CIRCLES_ENTRY_CPP(queries, "queries", queries)
CIRCLES_ENTRY_CPP(log_lines, "log-lines", log_lines)
CIRCLES_ENTRY_CPP(fail, "fail", fail)
CIRCLES_ENTRY_CPP(large, "large", large)
CIRCLES_ENTRY_CPP(habits, "habits", habits)
CIRCLES_ENTRY_CPP(raw, "raw", raw)
