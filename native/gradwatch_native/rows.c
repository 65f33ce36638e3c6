/* What was read, one row for each tensor. */
#include "kernels.h"

#include <string.h>

static Row *add_row(Table *table) {
    if (table->n_rows == table->capacity) {
        int64_t capacity = table->capacity ? 2 * table->capacity : 256;
        Row *rows = PyMem_Realloc(table->rows, (size_t)capacity * sizeof(Row));
        if (!rows) return (Row *)PyErr_NoMemory();
        table->rows = rows, table->capacity = capacity;
    }
    Row *row = &table->rows[table->n_rows];
    memset(row, 0, sizeof *row);
    return row;
}

/* Answers 1 where a row was added, else 0 with an error set. */
int put_row(Table *table, PyObject *tensor, const View *view, int column, int index,
                   int root, int counts_zeros) {
    int64_t sample = 0, nonzero = 0;
    double total = measure_once(table, tensor, view); /* other threads may run meanwhile */
    if (counts_zeros) nonzero = count_sample(table, view, &sample); /* now it is in the cache */
    Row *row = nonzero < 0 ? NULL : add_row(table);
    if (!row) return 0;
    row->column = column, row->index = index, row->root = root, row->sample = (int32_t)sample;
    row->nonzero = (double)nonzero, row->sum_squares = total;
    ++table->n_rows;
    return 1;
}

const char read_doc[] =
    "read(column, index, root, tensor, counts_zeros) -> bool\n\n"
             "Add a row with the sum of squares of a tensor, and the count of what is not zero in\n"
             "its sample where that is wanted. False where the tensor cannot be read here.";

PyObject *table_read(Table *table, PyObject *const *args, Py_ssize_t n) {
    if (n != 5) return PyErr_Format(PyExc_TypeError, "read takes 5 arguments, got %zd", n);
    long column = PyLong_AsLong(args[0]), index = PyLong_AsLong(args[1]);
    long root = PyLong_AsLong(args[2]);
    int counts_zeros = PyObject_IsTrue(args[4]);
    if (PyErr_Occurred()) return NULL;
    View view;
    if (!find_view(table, args[3], &view)) Py_RETURN_FALSE;
    if (!put_row(table, args[3], &view, column, index, root, counts_zeros)) return NULL;
    Py_RETURN_TRUE;
}

const char take_doc[] =
    "take(column) -> tuple[list[int], list[int], list[int], list[float], list[float]]\n\n"
    "Indices, roots, sizes of samples, sums of squares and counts of what is not zero of all rows\n"
    "of one column, which are forgotten.";

enum { INDICES, ROOTS, SAMPLES, SUMS, NONZEROS, FIELDS };

static PyObject *make_field(const Row *row, int field) {
    if (field == SUMS) return PyFloat_FromDouble(row->sum_squares);
    if (field == NONZEROS) return PyFloat_FromDouble(row->nonzero);
    return PyLong_FromLong(field == INDICES ? row->index : field == ROOTS ? row->root : row->sample);
}

static PyObject *list_field(const Table *table, int column, int field) {
    PyObject *list = PyList_New(0);
    for (int64_t i = 0; list && i < table->n_rows; ++i) {
        if (table->rows[i].column != column) continue;
        PyObject *value = make_field(&table->rows[i], field);
        if (!value || PyList_Append(list, value) < 0) Py_CLEAR(list);
        Py_XDECREF(value);
    }
    return list;
}

PyObject *table_take(Table *table, PyObject *number) {
    long column = PyLong_AsLong(number);
    PyObject *fields = PyErr_Occurred() ? NULL : PyTuple_New(FIELDS);
    for (int field = 0; fields && field < FIELDS; ++field) {
        PyObject *list = list_field(table, (int)column, field);
        if (!list || PyTuple_SetItem(fields, field, list) < 0) Py_CLEAR(fields);
    }
    int64_t kept = 0;
    for (int64_t i = 0; fields && i < table->n_rows; ++i)
        if (table->rows[i].column != column) table->rows[kept++] = table->rows[i];
    if (fields) table->n_rows = kept;
    return fields;
}

const char measure_doc[] =
    "measure(tensors) -> list[float] | None\n\n"
    "Sums of squares, one of each tensor; None where one cannot be read here.";

PyObject *table_measure(Table *table, PyObject *tensors) {
    Py_ssize_t count = PyList_Check(tensors) ? PyList_Size(tensors) : -1;
    if (count < 0) return PyErr_Format(PyExc_TypeError, "measure takes a list of tensors");
    PyObject *sums = PyList_New(0);
    for (Py_ssize_t i = 0; sums && i < count; ++i) {
        View view;
        if (!find_view(table, PyList_GetItem(tensors, i), &view)) {
            Py_DECREF(sums);
            Py_RETURN_NONE;
        }
        PyObject *sum = PyFloat_FromDouble(sum_squares_of(&view));
        if (!sum || PyList_Append(sums, sum) < 0) Py_CLEAR(sums);
        Py_XDECREF(sum);
    }
    return sums;
}
