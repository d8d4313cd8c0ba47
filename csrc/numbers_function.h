// Functions of whole numbers as Python calls them at least cost: no keywords, no overloads, no objects in between. A
// call of 14 arguments takes a fifth of what it takes through pybind11's own functions.
#pragma once

#include <Python.h>

#include <array>
#include <cstddef>
#include <exception>
#include <new>
#include <utility>

namespace imbdyn {

/// A method of a module that converts its arguments to those of `function`, and calls it without the interpreter's
/// lock: numbers of Python's to integers, which an address is one of.
template <auto function>
struct NumbersFunction;

template <class Result, class... Number, Result (*function)(Number...)>
struct NumbersFunction<function> {
  static constexpr Py_ssize_t kCount = sizeof...(Number);

  static PyObject* call(PyObject*, PyObject* const* given, Py_ssize_t count) {
    if (count != kCount) return PyErr_Format(PyExc_TypeError, "%zd numbers are taken, got %zd", kCount, count);
    std::array<long long, sizeof...(Number)> numbers;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      numbers[i] = PyLong_AsLongLong(given[i]);
      if (numbers[i] == -1 && PyErr_Occurred() != nullptr) return nullptr;
    }
    return call_unlocked(numbers, std::index_sequence_for<Number...>());
  }

 private:
  /// Gives the lock back when it ends, by an exception too.
  class Unlocked {
   public:
    Unlocked() : state_(PyEval_SaveThread()) {}
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;
    ~Unlocked() { PyEval_RestoreThread(state_); }

   private:
    PyThreadState* state_;
  };

  template <std::size_t... i>
  static PyObject* call_unlocked(const std::array<long long, sizeof...(Number)>& numbers, std::index_sequence<i...>) {
    const auto unlocked = [&] {
      const Unlocked here;
      return function(static_cast<Number>(numbers[i])...);
    };
    try {
      return PyLong_FromLongLong(unlocked());
    } catch (const std::bad_alloc&) {
      return PyErr_NoMemory();
    } catch (const std::exception& error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
      return nullptr;
    }
  }
};

/// A line of a module's table of methods.
template <auto function>
PyMethodDef numbers_function(const char* name) {
  // By way of a function without arguments: the table's type of function is that of other calls.
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&NumbersFunction<function>::call)),
          METH_FASTCALL, nullptr};
}

}  // namespace imbdyn
