// Rows as Python hands them over, taken into a Commit. Only what is common is taken here: arrays of the column's own
// type, scalars of Python's own, names. Whatever else comes is left to imbdyn/trace/_rows.py, whose errors name it.
#include "trace/bindings.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "trace/commit.h"

namespace py = pybind11;

namespace imbdyn {

namespace {

constexpr std::size_t kMostColumns = 32;
constexpr std::int64_t kScalar = -1;
constexpr std::size_t kMostNameBytes = std::numeric_limits<std::int32_t>::max();

/// A buffer of Python's that is given back at the end.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (held_) PyBuffer_Release(&view_);
  }
  /// Whether `object` gives one, of one dimension.
  bool take(PyObject* object) {
    if (PyObject_GetBuffer(object, &view_, PyBUF_FORMAT | PyBUF_STRIDES) != 0) {
      PyErr_Clear();
      return false;
    }
    held_ = true;
    return view_.ndim == 1 && view_.format != nullptr && view_.format[0] != '\0' && view_.format[1] == '\0';
  }
  char format() const { return view_.format[0]; }
  std::int64_t rows() const { return view_.shape[0]; }
  std::size_t item() const { return static_cast<std::size_t>(view_.itemsize); }
  std::ptrdiff_t stride() const { return view_.strides[0]; }
  const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(view_.buf); }

 private:
  Py_buffer view_{};
  bool held_ = false;
};

/// What was given for one column.
struct Given {
  enum class Form { kAbsent, kScalar, kArray, kNames } form = Form::kAbsent;
  std::int64_t rows = kScalar;
  /// Of arrays: the first value, and the bytes from one to the next.
  const std::uint8_t* data = nullptr;
  std::ptrdiff_t stride = 0;
  bool narrows = false;
  /// Of arrays: a byte a row, or none. In a mask a 1 is a value that is absent.
  const std::uint8_t* valid = nullptr;
  std::ptrdiff_t valid_stride = 0;
  bool is_mask = false;
  std::array<std::uint8_t, 8> scalar{};
  /// Of names: the UTF-8 of all, and where each begins; no offsets if one name stands for every row.
  const char* text = nullptr;
  std::size_t text_size = 0;
  const char* offsets = nullptr;
  /// Of names: a list of them, instead.
  PyObject* list = nullptr;
  Buffer values, validity;
};

struct ColumnOf {
  py::object name;
  ColumnKind kind;
  bool required;
};

bool is_integer(char format, std::size_t item, std::size_t size) {
  return item == size && (format == 'i' || format == 'l' || format == 'q');
}

/// Whether an array's elements are the column's: int64 is also taken for int32, and looked at when it is copied.
bool fits(ColumnKind kind, const Buffer& values) {
  switch (kind) {
    case ColumnKind::kReal: return values.format() == 'd';
    case ColumnKind::kInt64: return is_integer(values.format(), values.item(), 8);
    case ColumnKind::kInt32:
      return is_integer(values.format(), values.item(), 4) || is_integer(values.format(), values.item(), 8);
    case ColumnKind::kBool: return values.format() == '?';
    case ColumnKind::kName: return false;
  }
  return false;
}

std::int64_t int64_at(const Given& given, std::int64_t row) {
  std::int64_t value;
  std::memcpy(&value, given.data + row * given.stride, sizeof(value));
  return value;
}

bool is_int32(std::int64_t value) {
  return value >= std::numeric_limits<std::int32_t>::min() && value <= std::numeric_limits<std::int32_t>::max();
}

std::int32_t int32_at(const char* array, std::int64_t index) {
  std::int32_t value;
  std::memcpy(&value, array + 4 * index, sizeof(value));
  return value;
}

std::uint8_t* grow(std::vector<std::uint8_t>& bytes, std::size_t more) {
  bytes.resize(bytes.size() + more);
  return bytes.data() + bytes.size() - more;
}

/// Copies text to where there is room for it. memcpy must not see a null pointer, even for no bytes, and an empty
/// vector's data is one.
void put_text(std::uint8_t* at, const char* text, std::size_t size) {
  if (size > 0) std::memcpy(at, text, size);
}

/// Whether offsets of 32 bits can count the names with those that come.
bool has_room(const CommitColumn& column, const Given& given, std::int64_t rows) {
  const bool is_one = given.offsets == nullptr && given.list == nullptr;
  const std::size_t times = is_one ? static_cast<std::size_t>(rows) : 1;
  return given.text_size == 0 || (kMostNameBytes - column.data.size()) / given.text_size >= times;
}

void put_names(CommitColumn& column, const Given& given, std::int64_t rows) {
  auto end = static_cast<std::int32_t>(column.data.size());
  const std::size_t before = column.ends.size();
  column.ends.resize(before + static_cast<std::size_t>(rows));
  std::int32_t* const ends = column.ends.data() + before;
  if (given.list != nullptr) {
    std::uint8_t* at = grow(column.data, given.text_size);
    for (std::int64_t row = 0; row < rows; ++row) {
      Py_ssize_t size = 0;
      const char* const text = PyUnicode_AsUTF8AndSize(PyList_GET_ITEM(given.list, row), &size);
      put_text(at, text, static_cast<std::size_t>(size));
      at += size;
      ends[row] = end += static_cast<std::int32_t>(size);
    }
    return;
  }
  if (given.offsets != nullptr) {
    for (std::int64_t row = 0; row < rows; ++row) ends[row] = end + int32_at(given.offsets, row + 1);
    put_text(grow(column.data, given.text_size), given.text, given.text_size);
    return;
  }
  std::uint8_t* at = grow(column.data, given.text_size * static_cast<std::size_t>(rows));
  for (std::int64_t row = 0; row < rows; ++row, at += given.text_size) {
    put_text(at, given.text, given.text_size);
    ends[row] = end += static_cast<std::int32_t>(given.text_size);
  }
}

void put_values(CommitColumn& column, const Given& given, std::int64_t rows) {
  const std::size_t size = value_size(column.kind);
  std::uint8_t* at = grow(column.data, size * static_cast<std::size_t>(rows));  // zeros, which an absent value is
  if (given.form == Given::Form::kScalar) {
    for (std::int64_t row = 0; row < rows; ++row, at += size) std::memcpy(at, given.scalar.data(), size);
  } else if (given.form == Given::Form::kArray && given.narrows) {
    for (std::int64_t row = 0; row < rows; ++row, at += size) {
      const auto value = static_cast<std::int32_t>(int64_at(given, row));
      std::memcpy(at, &value, size);
    }
  } else if (given.form == Given::Form::kArray && given.stride == static_cast<std::ptrdiff_t>(size)) {
    if (rows > 0) std::memcpy(at, given.data, size * static_cast<std::size_t>(rows));
  } else if (given.form == Given::Form::kArray) {
    for (std::int64_t row = 0; row < rows; ++row, at += size) {
      std::memcpy(at, given.data + row * given.stride, size);
    }
  }
}

void put_validity(CommitColumn& column, const Given& given, std::int64_t before, std::int64_t rows) {
  const bool absent = given.form == Given::Form::kAbsent;
  const auto is_valid = [&](std::int64_t row) {
    return static_cast<std::uint8_t>(given.valid[row * given.valid_stride] != static_cast<std::uint8_t>(given.is_mask));
  };
  bool all = !absent;
  for (std::int64_t row = 0; all && given.valid != nullptr && row < rows; ++row) all = is_valid(row) != 0;
  if (all && column.valid.empty()) return;
  column.valid.resize(static_cast<std::size_t>(before), 1);
  column.valid.resize(static_cast<std::size_t>(before + rows), absent ? 0 : 1);
  if (given.valid == nullptr) return;
  for (std::int64_t row = 0; row < rows; ++row) column.valid[static_cast<std::size_t>(before + row)] = is_valid(row);
}

void put(CommitColumn& column, const Given& given, std::int64_t before, std::int64_t rows) {
  if (column.kind == ColumnKind::kName) {
    put_names(column, given, rows);
  } else {
    put_values(column, given, rows);
    put_validity(column, given, before, rows);
  }
}

class CommitRows {
 public:
  CommitRows(std::int64_t record, const std::string& metadata, std::size_t body_length_at, const py::list& tables,
             py::object array, py::object masked, py::object nullable, py::object names)
      : record_(record),
        array_(std::move(array)),
        masked_(std::move(masked)),
        nullable_(std::move(nullable)),
        names_(std::move(names)),
        cell_(py::str("cell")),
        mask_(py::str("_mask")) {
    std::vector<CommitTable> empty;
    for (const py::handle& item : tables) {
      const auto table = item.cast<py::tuple>();
      CommitTable made;
      made.nodes_at = table[0].cast<std::size_t>();
      made.buffers_at = table[1].cast<std::size_t>();
      std::vector<ColumnOf> columns;
      for (const py::handle& column_item : table[2].cast<py::list>()) {
        const auto column = column_item.cast<py::tuple>();
        const auto kind = static_cast<ColumnKind>(column[1].cast<int>());
        columns.push_back({column[0], kind, column[2].cast<bool>()});
        made.columns.push_back({kind, {}, {}, {}});
      }
      if (columns.size() > kMostColumns) throw py::value_error("a table has more columns than a commit can hold");
      empty.push_back(std::move(made));
      columns_.push_back(std::move(columns));
    }
    commit_ = std::make_unique<Commit>(metadata, body_length_at, std::move(empty));
  }

  /// Takes the rows and returns true, or returns false and takes nothing.
  bool append(std::size_t index, const py::dict& given) {
    CommitTable& table = commit_->table(index);
    const std::vector<ColumnOf>& columns = columns_[index];
    std::array<Given, kMostColumns> found;
    std::int64_t rows = kScalar;
    Py_ssize_t known = 0;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      PyObject* const value = PyDict_GetItemWithError(given.ptr(), columns[c].name.ptr());
      known += value != nullptr;
      if (!read(columns[c], value, found[c])) return false;
      if (found[c].rows == kScalar) continue;
      if (rows != kScalar && rows != found[c].rows) return false;
      rows = found[c].rows;
    }
    if (known != PyDict_GET_SIZE(given.ptr())) return false;
    if (rows == kScalar) rows = 1;
    if (rows == 0) return true;
    if (table.rows + rows > std::numeric_limits<std::int32_t>::max()) return false;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      if (found[c].form == Given::Form::kNames && !has_room(table.columns[c], found[c], rows)) return false;
    }
    for (std::size_t c = 0; c < columns.size(); ++c) put(table.columns[c], found[c], table.rows, rows);
    table.rows += rows;
    return true;
  }

  /// Takes rows that imbdyn/trace/_rows.py has parsed, a Cell a column.
  void append_cells(std::size_t index, std::int64_t rows, const py::list& cells) {
    CommitTable& table = commit_->table(index);
    std::array<Given, kMostColumns> found;
    for (std::size_t c = 0; c < table.columns.size(); ++c) {
      read_cell(PyList_GET_ITEM(cells.ptr(), static_cast<Py_ssize_t>(c)), table.columns[c].kind, found[c]);
      if (!has_room(table.columns[c], found[c], rows)) {
        throw py::value_error("the rows of one commit may have 2 GiB of names in a column");
      }
    }
    for (std::size_t c = 0; c < table.columns.size(); ++c) put(table.columns[c], found[c], table.rows, rows);
    table.rows += rows;
  }

  std::int64_t rows() const { return commit_->rows(); }

  std::int64_t record() const { return record_; }

  py::bytes encode() const {
    const std::size_t size = commit_->message_size();
    auto message = py::reinterpret_steal<py::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
    if (!message) throw py::error_already_set();
    commit_->write_message(record_, reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(message.ptr())));
    return message;
  }

  void begin_next() {
    commit_->clear();
    ++record_;
  }

  void clear() { commit_->clear(); }

 private:
  bool read(const ColumnOf& column, PyObject* value, Given& given) const {
    if (value == nullptr || value == Py_None) return !column.required;
    const ColumnKind kind = column.kind;
    if (kind == ColumnKind::kName) return read_names(value, given);
    if (is(value, array_)) return read_array(kind, value, given);
    if (is(value, nullable_)) {
      return !column.required && is(PyTuple_GET_ITEM(value, 0), array_) &&
             read_array(kind, PyTuple_GET_ITEM(value, 0), given) && read_valid(PyTuple_GET_ITEM(value, 1), given);
    }
    if (is(value, masked_)) return !column.required && read_masked(kind, value, given);
    return read_scalar(kind, value, given);
  }

  static bool is(PyObject* value, const py::object& type) {
    return reinterpret_cast<PyObject*>(Py_TYPE(value)) == type.ptr();
  }

  static bool read_scalar(ColumnKind kind, PyObject* value, Given& given) {
    given.form = Given::Form::kScalar;
    if (kind == ColumnKind::kReal && PyFloat_Check(value)) {
      const double real = PyFloat_AS_DOUBLE(value);
      std::memcpy(given.scalar.data(), &real, sizeof(real));
      return true;
    }
    if (kind == ColumnKind::kBool && PyBool_Check(value)) {
      given.scalar[0] = value == Py_True;
      return true;
    }
    if ((kind != ColumnKind::kInt64 && kind != ColumnKind::kInt32) || !PyLong_CheckExact(value)) return false;
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow != 0 || (kind == ColumnKind::kInt32 && !is_int32(number))) return false;
    std::memcpy(given.scalar.data(), &number, value_size(kind));  // little-endian: the low bytes come first
    return true;
  }

  static bool read_array(ColumnKind kind, PyObject* value, Given& given) {
    given.form = Given::Form::kArray;
    if (!given.values.take(value) || !fits(kind, given.values)) return false;
    given.rows = given.values.rows();
    given.data = given.values.data();
    given.stride = given.values.stride();
    given.narrows = kind == ColumnKind::kInt32 && given.values.item() == 8;
    for (std::int64_t row = 0; given.narrows && row < given.rows; ++row) {
      if (!is_int32(int64_at(given, row))) return false;
    }
    return true;
  }

  static bool read_valid(PyObject* value, Given& given) {
    if (!given.validity.take(value) || given.validity.format() != '?' || given.validity.rows() != given.rows) {
      return false;
    }
    given.valid = given.validity.data();
    given.valid_stride = given.validity.stride();
    return true;
  }

  /// A masked array gives its values as its buffer; its mask is an array, or a scalar if nothing is masked.
  bool read_masked(ColumnKind kind, PyObject* value, Given& given) const {
    if (!read_array(kind, value, given)) return false;
    const auto mask = py::reinterpret_steal<py::object>(PyObject_GetAttr(value, mask_.ptr()));
    if (!mask) PyErr_Clear();
    if (!mask || !is(mask.ptr(), array_)) return mask.ptr() != nullptr;
    given.is_mask = true;
    return read_valid(mask.ptr(), given);
  }

  bool read_names(PyObject* value, Given& given) const {
    given.form = Given::Form::kNames;
    if (PyUnicode_CheckExact(value)) {
      Py_ssize_t size = 0;
      given.text = PyUnicode_AsUTF8AndSize(value, &size);
      given.text_size = static_cast<std::size_t>(size);
      if (given.text == nullptr) PyErr_Clear();  // it is no Unicode text
      return given.text != nullptr;
    }
    if (PyList_CheckExact(value)) return read_list(value, given);
    if (!is(value, names_)) return false;
    const auto cell = py::reinterpret_steal<py::object>(PyObject_GetAttr(value, cell_.ptr()));
    if (!cell) throw py::error_already_set();
    read_cell(cell.ptr(), ColumnKind::kName, given);
    return true;
  }

  static bool read_list(PyObject* list, Given& given) {
    given.list = list;
    given.rows = PyList_GET_SIZE(list);
    for (Py_ssize_t row = 0; row < given.rows; ++row) {
      PyObject* const name = PyList_GET_ITEM(list, row);
      Py_ssize_t size = 0;
      if (!PyUnicode_CheckExact(name) || PyUnicode_AsUTF8AndSize(name, &size) == nullptr) {
        PyErr_Clear();
        return false;
      }
      given.text_size += static_cast<std::size_t>(size);
    }
    return true;
  }

  /// A Cell of imbdyn/trace/_rows.py: rows, data, valid, offsets; its owner holds it as long as `given` is used.
  void read_cell(PyObject* cell, ColumnKind kind, Given& given) const {
    PyObject* const data = PyTuple_GET_ITEM(cell, 1);
    PyObject* const valid = PyTuple_GET_ITEM(cell, 2);
    given.rows = PyLong_AsLongLong(PyTuple_GET_ITEM(cell, 0));
    if (kind == ColumnKind::kName) {
      given.form = Given::Form::kNames;
      given.text = PyBytes_AS_STRING(data);
      given.text_size = static_cast<std::size_t>(PyBytes_GET_SIZE(data));
      given.offsets = PyBytes_AS_STRING(PyTuple_GET_ITEM(cell, 3));
    } else if (valid != Py_False) {
      given.form = Given::Form::kArray;
      given.data = reinterpret_cast<const std::uint8_t*>(PyBytes_AS_STRING(data));
      given.stride = static_cast<std::ptrdiff_t>(value_size(kind));
      if (valid != Py_True) read_valid(valid, given);
    }
  }

  std::int64_t record_;
  std::vector<std::vector<ColumnOf>> columns_;
  std::unique_ptr<Commit> commit_;
  py::object array_, masked_, nullable_, names_;
  py::object cell_, mask_;
};

}  // namespace

void bind_trace(py::module_& m) {
  py::class_<CommitRows>(m, "CommitRows")
      .def(py::init<std::int64_t, const std::string&, std::size_t, const py::list&, py::object, py::object, py::object,
                    py::object>())
      .def("append", &CommitRows::append)
      .def("append_cells", &CommitRows::append_cells)
      .def_property_readonly("rows", &CommitRows::rows)
      .def_property_readonly("record", &CommitRows::record)
      .def("encode", &CommitRows::encode)
      .def("begin_next", &CommitRows::begin_next)
      .def("clear", &CommitRows::clear);
}

}  // namespace imbdyn
