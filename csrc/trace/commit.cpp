#include "trace/commit.h"

#include <cstring>
#include <utility>

namespace imbdyn {

namespace {

/// Memory that a column keeps when its rows are forgotten.
constexpr std::size_t kKeptBytes = std::size_t{1} << 20;

std::size_t padded(std::size_t size) { return (size + 7) & ~std::size_t{7}; }

std::size_t bitmap_size(std::int64_t rows) { return static_cast<std::size_t>(rows + 7) / 8; }

std::size_t data_size(const CommitColumn& column, std::int64_t rows) {
  return column.kind == ColumnKind::kBool ? bitmap_size(rows) : column.data.size();
}

/// Packs bytes that are 0 or 1 into bits, the first into the lowest, and counts the zeros.
std::int64_t pack(const std::vector<std::uint8_t>& bytes, std::uint8_t* bits) {
  std::int64_t zeros = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bits[i / 8] = static_cast<std::uint8_t>(bits[i / 8] | (bytes[i] << (i % 8)));
    zeros += bytes[i] == 0;
  }
  return zeros;
}

/// Numbers of the metadata, written one after the other.
class Numbers {
 public:
  explicit Numbers(std::uint8_t* at) : at_(at) {}
  void put(std::int64_t first, std::int64_t second) {
    const std::int64_t pair[2] = {first, second};
    std::memcpy(at_, pair, sizeof(pair));
    at_ += sizeof(pair);
  }

 private:
  std::uint8_t* at_;
};

template <class T>
void release(std::vector<T>& values) {
  values.clear();
  if (values.capacity() * sizeof(T) > kKeptBytes) values.shrink_to_fit();
}

}  // namespace

std::size_t value_size(ColumnKind kind) {
  switch (kind) {
    case ColumnKind::kReal:
    case ColumnKind::kInt64: return 8;
    case ColumnKind::kInt32: return 4;
    case ColumnKind::kBool: return 1;
    case ColumnKind::kName: return 0;
  }
  return 0;
}

Commit::Commit(std::string metadata, std::size_t body_length_at, std::vector<CommitTable> tables)
    : metadata_(std::move(metadata)), body_length_at_(body_length_at), tables_(std::move(tables)) {}

std::int64_t Commit::rows() const {
  std::int64_t rows = 0;
  for (const CommitTable& table : tables_) rows += table.rows;
  return rows;
}

std::size_t Commit::head_size() const { return 8 + 8 * tables_.size(); }

std::size_t Commit::body_size() const {
  std::size_t size = head_size();
  for (const CommitTable& table : tables_) {
    if (table.rows == 0) continue;
    for (const CommitColumn& column : table.columns) {
      if (!column.valid.empty()) size += padded(bitmap_size(table.rows));
      if (column.kind == ColumnKind::kName) size += padded(4 * (column.ends.size() + 1));
      size += padded(data_size(column, table.rows));
    }
  }
  return size;
}

std::size_t Commit::message_size() const { return metadata_.size() + body_size(); }

void Commit::write_message(std::int64_t record, std::uint8_t* out) const {
  const std::size_t size = body_size();
  std::memcpy(out, metadata_.data(), metadata_.size());
  std::uint8_t* const body = out + metadata_.size();
  std::memset(body, 0, size);  // what stands between the buffers is zero
  const auto length = static_cast<std::int64_t>(size);
  std::memcpy(out + body_length_at_, &length, sizeof(length));
  std::memcpy(body, &record, sizeof(record));
  std::size_t position = head_size();
  for (std::size_t index = 0; index < tables_.size(); ++index) {
    const CommitTable& table = tables_[index];
    if (table.rows == 0) continue;
    const auto rows = static_cast<std::int32_t>(table.rows);
    std::memcpy(body + 8 + 8 * index + 4, &rows, sizeof(rows));
    Numbers nodes(out + table.nodes_at), buffers(out + table.buffers_at);
    nodes.put(table.rows, 0);
    buffers.put(static_cast<std::int64_t>(position), 0);
    const auto next_buffer = [&](std::size_t bytes) {
      buffers.put(static_cast<std::int64_t>(position), static_cast<std::int64_t>(bytes));
      std::uint8_t* const at = body + position;
      position += padded(bytes);
      return at;
    };
    for (const CommitColumn& column : table.columns) {
      if (column.valid.empty()) {
        nodes.put(table.rows, 0);
        next_buffer(0);
      } else {
        nodes.put(table.rows, pack(column.valid, next_buffer(bitmap_size(table.rows))));
      }
      if (column.kind == ColumnKind::kName) {  // its first offset is 0
        std::memcpy(next_buffer(4 * (column.ends.size() + 1)) + 4, column.ends.data(), 4 * column.ends.size());
      }
      std::uint8_t* const data = next_buffer(data_size(column, table.rows));
      if (column.kind == ColumnKind::kBool) {
        pack(column.data, data);
      } else if (!column.data.empty()) {
        std::memcpy(data, column.data.data(), column.data.size());
      }
    }
  }
}

void Commit::clear() {
  for (CommitTable& table : tables_) {
    if (table.rows == 0) continue;
    table.rows = 0;
    for (CommitColumn& column : table.columns) {
      release(column.data);
      release(column.valid);
      release(column.ends);
    }
  }
}

}  // namespace imbdyn
