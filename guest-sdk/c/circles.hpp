// circles.hpp: circles.h for C++17, without exceptions: what a function hands out frees
// itself, and what can fail returns a result. The whole of a module:
//
//     #include <circles.hpp>
//
//     circles::result<std::string> greet(std::string_view) {
//       auto card = circles::caller().read("/card.txt");
//       if (!card) return std::move(card).error();
//       return "hello, " + std::string(card->view());
//     }
//     CIRCLES_ENTRY_CPP(run, "run", greet)
//
//     clang --target=wasm32-wasi -c guest-sdk/c/circles.c -o circles.o
//     clang++ --target=wasm32-wasi -mexec-model=reactor -std=c++17 -fno-exceptions -Os \
//       -I guest-sdk/c module.cpp circles.o -o module.wasm
//
// circles.h says what each function does. Names, paths and keys have no NUL in them:
// one that has is an error of code CIRCLES_INVALID.
#ifndef CIRCLES_HPP
#define CIRCLES_HPP

#include "circles.h"

#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace circles {

// Bytes that the host made. They can be moved, not copied.
class bytes {
 public:
  bytes() = default;
  explicit bytes(circles_bytes b) : b_(b) {}
  bytes(bytes &&o) noexcept : b_(std::exchange(o.b_, {})) {}
  bytes &operator=(bytes &&o) noexcept {
    std::swap(b_, o.b_);
    return *this;
  }
  ~bytes() { circles_bytes_free(&b_); }

  const uint8_t *data() const { return b_.data; }
  size_t size() const { return b_.len; }
  std::string_view view() const { return {reinterpret_cast<const char *>(b_.data), b_.len}; }

 private:
  circles_bytes b_ = {nullptr, 0};
};

// One way in which a value is not as its collection's schema says.
struct violation {
  std::string path;  // where in the value, a JSON Pointer (RFC 6901); "" is all of it
  std::string reason;
};

// Why an operation, or an entry, did not succeed.
struct error {
  circles_code code;
  std::string message;

  // Those that an error of code CIRCLES_VIOLATES tells of.
  std::vector<violation> violations() const {
    auto *data = reinterpret_cast<uint8_t *>(const_cast<char *>(message.data()));  // which nothing changes
    circles_error e = {code, {data, message.size()}};
    std::vector<violation> out;
    for (circles_violation v = {}; circles_next_violation(&e, &v);)
      out.push_back({{v.path, v.path_len}, {v.reason, v.reason_len}});
    return out;
  }
};

// A value, or an error. To ask for the one that is not there ends the instance.
template <class T>
class [[nodiscard]] result {
 public:
  result(T value) : v_(std::in_place_index<0>, std::move(value)) {}
  result(circles::error e) : v_(std::in_place_index<1>, std::move(e)) {}

  explicit operator bool() const { return v_.index() == 0; }
  T &operator*() & { return need<0>(v_); }
  T &&operator*() && { return std::move(need<0>(v_)); }
  T *operator->() { return &need<0>(v_); }
  const circles::error &error() const & { return need<1>(v_); }
  circles::error &&error() && { return std::move(need<1>(v_)); }

 private:
  template <size_t i, class V>
  static auto &need(V &v) {
    if (v.index() != i) std::abort();
    return *std::get_if<i>(&v);
  }
  std::variant<T, circles::error> v_;
};

// Done, or an error.
template <>
class [[nodiscard]] result<void> {
 public:
  result() = default;
  result(circles::error e) : e_(std::move(e)) {}
  explicit operator bool() const { return !e_; }
  const circles::error &error() const {
    if (!e_) std::abort();
    return *e_;
  }

 private:
  std::optional<circles::error> e_;
};

struct entry {
  std::string name;
  circles_kind kind;
};

// A record. A value that is not there is one that the policy hides.
struct record {
  std::string key;
  std::optional<std::string> value;
};

struct page {
  std::vector<record> records;
  std::string next;  // where to go on from, as start; "" at the end
};

namespace detail {
inline std::string text(const circles_bytes &b) { return {reinterpret_cast<const char *>(b.data), b.len}; }

inline error take(circles_error &e) {
  error out{e.code, text(e.message)};
  circles_error_free(&e);
  return out;
}

template <class... Strings>
bool has_nul(const Strings &...s) {
  return ((s.find('\0') != std::string::npos) || ...);
}
inline error nul() { return {CIRCLES_INVALID, "a name with a NUL in it"}; }
}  // namespace detail

// Which peer's context: a name, not a handle.
class context {
 public:
  explicit context(circles_context c) : c_(c) {}

  std::string id() const { return std::string(bytes(circles_id(c_)).view()); }
  std::string name() const { return std::string(bytes(circles_name(c_)).view()); }

  result<bytes> read(const std::string &path) const {
    return got([&](circles_bytes *b, circles_error *e) { return circles_read(c_, path.c_str(), b, e); }, path);
  }
  result<bytes> read_at(const std::string &path, uint64_t offset, uint32_t length) const {
    return got([&](circles_bytes *b, circles_error *e) { return circles_read_at(c_, path.c_str(), offset, length, b, e); },
               path);
  }
  result<void> write(const std::string &path, std::string_view data) const {
    return done([&](circles_error *e) { return circles_write(c_, path.c_str(), data.data(), data.size(), e); }, path);
  }
  result<void> append(const std::string &path, std::string_view data) const {
    return done([&](circles_error *e) { return circles_append(c_, path.c_str(), data.data(), data.size(), e); }, path);
  }
  result<void> make_directory(const std::string &path) const {
    return done([&](circles_error *e) { return circles_make_directory(c_, path.c_str(), e); }, path);
  }
  result<void> remove(const std::string &path) const {
    return done([&](circles_error *e) { return circles_remove(c_, path.c_str(), e); }, path);
  }
  result<circles_stat> stat(const std::string &path) const {
    circles_stat s;
    auto r = done([&](circles_error *e) { return circles_stat_path(c_, path.c_str(), &s, e); }, path);
    if (!r) return r.error();
    return s;
  }
  result<std::vector<entry>> list(const std::string &path) const {
    circles_entries l;
    auto r = done([&](circles_error *e) { return circles_list(c_, path.c_str(), &l, e); }, path);
    if (!r) return r.error();
    std::vector<entry> out;
    out.reserve(l.len);
    for (size_t i = 0; i < l.len; i++) out.push_back({detail::text(l.data[i].name), l.data[i].kind});
    circles_entries_free(&l);
    return out;
  }

  result<bytes> get_record(const std::string &collection, const std::string &key) const {
    return got([&](circles_bytes *b, circles_error *e) { return circles_get_record(c_, collection.c_str(), key.c_str(), b, e); },
               collection, key);
  }
  result<void> put_record(const std::string &collection, const std::string &key, std::string_view value) const {
    return done(
        [&](circles_error *e) {
          return circles_put_record(c_, collection.c_str(), key.c_str(), value.data(), value.size(), e);
        },
        collection, key);
  }
  // Puts a record if its value is expected, and for nothing if there is no such record;
  // else the error is CIRCLES_CONFLICT, and nothing changes.
  result<void> replace_record(const std::string &collection, const std::string &key,
                              std::optional<std::string_view> expected, std::string_view value) const {
    const char *was = !expected ? nullptr : expected->empty() ? "" : expected->data();
    return done(
        [&](circles_error *e) {
          return circles_replace_record(c_, collection.c_str(), key.c_str(), was, expected ? expected->size() : 0, value.data(),
                                        value.size(), e);
        },
        collection, key);
  }
  result<void> delete_record(const std::string &collection, const std::string &key) const {
    return done([&](circles_error *e) { return circles_delete_record(c_, collection.c_str(), key.c_str(), e); },
                collection, key);
  }
  result<page> list_records(const std::string &collection, const std::string &start = "", const std::string &prefix = "",
                            uint32_t limit = 0) const {
    circles_records l;
    auto r = done(
        [&](circles_error *e) {
          return circles_list_records(c_, collection.c_str(), start.c_str(), prefix.c_str(), limit, &l, e);
        },
        collection, start, prefix);
    if (!r) return r.error();
    return taken(l);
  }
  // A page of the records that a query is true of, a JSON text that host.wit describes.
  result<page> query_records(const std::string &collection, const std::string &query, const std::string &start = "",
                             uint32_t limit = 0) const {
    circles_records l;
    auto r = done(
        [&](circles_error *e) {
          return circles_query_records(c_, collection.c_str(), query.c_str(), start.c_str(), limit, &l, e);
        },
        collection, query, start);
    if (!r) return r.error();
    return taken(l);
  }

  // Sends a script from this context's peer, which is to be the target, to another one.
  result<bytes> send(const std::string &to, const std::string &logic, const std::string &entry, std::string_view params) const {
    return got(
        [&](circles_bytes *b, circles_error *e) {
          return circles_send(c_, to.c_str(), logic.c_str(), entry.c_str(), params.data(), params.size(), b, e);
        },
        to, logic, entry);
  }

 private:
  friend result<bytes> call(const std::string &, const std::string &, std::string_view);
  friend result<bytes> base(const std::string &, std::string_view);

  static page taken(circles_records &l) {
    page out;
    out.next = detail::text(l.next);
    for (size_t i = 0; i < l.len; i++) {
      record one{detail::text(l.data[i].key), std::nullopt};
      if (!l.data[i].denied) one.value = detail::text(l.data[i].value);
      out.records.push_back(std::move(one));
    }
    circles_records_free(&l);
    return out;
  }
  template <class F, class... Names>
  static result<bytes> got(F f, const Names &...names) {
    circles_bytes b;
    auto r = done([&](circles_error *e) { return f(&b, e); }, names...);
    if (!r) return r.error();
    return bytes(b);
  }
  template <class F, class... Names>
  static result<void> done(F f, const Names &...names) {
    if (detail::has_nul(names...)) return detail::nul();
    circles_error e;
    if (!f(&e)) return detail::take(e);
    return {};
  }
  circles_context c_;
};

inline context caller() { return context(CIRCLES_CALLER); }
inline context target() { return context(CIRCLES_TARGET); }

// Runs an entry of another module of the target's context; "" is run. What failed by
// itself has the code CIRCLES_FAILED.
inline result<bytes> call(const std::string &module, const std::string &entry, std::string_view params) {
  return context::got(
      [&](circles_bytes *b, circles_error *e) {
        return circles_call(module.c_str(), entry.c_str(), params.data(), params.size(), b, e);
      },
      module, entry);
}

// Runs an entry of what this module stands before; "" is the one that it was entered by.
inline result<bytes> base(const std::string &entry, std::string_view params) {
  return context::got(
      [&](circles_bytes *b, circles_error *e) { return circles_base(entry.c_str(), params.data(), params.size(), b, e); }, entry);
}

// The entry that was asked for: a module of a chain that lacks it is entered by run.
inline std::string entry_name() { return std::string(bytes(circles_entry_name()).view()); }

inline void log(circles_level level, const std::string &message) { circles_log(level, message.c_str()); }

}  // namespace circles

// Defines an entry: a C identifier, the export in kebab case, and what is called with
// the params, a circles::result<std::string>(std::string_view).
#define CIRCLES_ENTRY_CPP(ident, export, handler)                                              \
  CIRCLES_ENTRY_AS(ident, export) {                                                            \
    auto r = handler(std::string_view(reinterpret_cast<const char *>(params.data), params.len)); \
    if (!r) return circles_fail(r.error().message.c_str());                                    \
    return circles_ok(r->data(), r->size());                                                   \
  }

#endif
