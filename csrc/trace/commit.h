// The rows of one commit to a trace, and their Arrow IPC message. imbdyn/trace/_record.py says how it is laid out, and
// makes the same bytes without this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace imbdyn {

enum class ColumnKind : std::uint8_t { kReal, kInt64, kInt32, kBool, kName };

/// Bytes of a value in memory; 0 for names, which have none in common.
std::size_t value_size(ColumnKind kind);

/// The values of one column.
struct CommitColumn {
  ColumnKind kind;
  /// The values one after the other, bools a byte each; the UTF-8 of names.
  std::vector<std::uint8_t> data;
  /// A byte a row; empty as long as every value is valid.
  std::vector<std::uint8_t> valid;
  /// Of names: where each one ends.
  std::vector<std::int32_t> ends;
};

/// The rows of one table, and where its numbers lie in the metadata of a message.
struct CommitTable {
  std::vector<CommitColumn> columns;
  std::int64_t rows = 0;
  std::size_t nodes_at = 0;
  std::size_t buffers_at = 0;
};

class Commit {
 public:
  /// `metadata` is that of a message in which no table has rows.
  Commit(std::string metadata, std::size_t body_length_at, std::vector<CommitTable> tables);

  CommitTable& table(std::size_t index) { return tables_[index]; }
  std::size_t tables() const { return tables_.size(); }
  std::int64_t rows() const;

  /// The bytes of the message of these rows.
  std::size_t message_size() const;
  /// Writes the message into that many bytes.
  void write_message(std::int64_t record, std::uint8_t* out) const;

  /// Forgets the rows.
  void clear();

 private:
  std::size_t head_size() const;
  std::size_t body_size() const;

  std::string metadata_;
  std::size_t body_length_at_;
  std::vector<CommitTable> tables_;
};

}  // namespace imbdyn
