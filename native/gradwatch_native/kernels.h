/* What the files of this module share. */
#ifndef GRADWATCH_NATIVE_KERNELS_H
#define GRADWATCH_NATIVE_KERNELS_H

#define Py_LIMITED_API 0x030A0000
#include <Python.h>
#include <stdint.h>

#define MAX_RECENT 8 /* norms that may be asked for again */

typedef enum { FLOAT32, FLOAT64, BFLOAT16, UNREADABLE } Kind;

/* Elements of a tensor that fill a stretch of memory. */
typedef struct {
    const char *data;
    int64_t size;
    Kind kind;
} View;

/* What was read of one tensor. */
typedef struct {
    int32_t column, index, root, sample;
    double sum_squares, nonzero;
} Row;

/* A large tensor that was read lately. */
typedef struct {
    PyObject *tensor; /* a weak reference */
    const char *data;
    int64_t size, version;
    double sum_squares;
} Recent;

/* What was read of one sampled step, and what is asked of gradwatch meanwhile. */
typedef struct {
    PyObject_HEAD
    PyObject *types, *dtypes, *task_id, *mode_counts, *begin_pass, *on_error, *choose_stride,
        *strides, *roots;
    int64_t sample_size, run_length, task;
    int is_open, is_training, output_column, input_column;
    Row *rows;
    int64_t n_rows, capacity;
    Recent recent[MAX_RECENT];
    int next_recent;
} Table;

/* elements.c */
extern const int ELEMENT_SIZES[];
double sum_squares(const char *data, int64_t n, Kind kind);
int64_t count_nonzero(const char *data, int64_t n, Kind kind);

/* tensors.c: answers of int are 1 for yes, 0 for no, and -1 with an error set where that may be */
int intern_names(void);
int64_t get_number(PyObject *value); /* takes the reference; -1 with an error set */
int find_view(Table *table, PyObject *tensor, View *view); /* leaves no error */
double sum_squares_of(const View *view);
double measure_once(Table *table, PyObject *tensor, const View *view);
int64_t count_sample(Table *table, const View *view, int64_t *sample); /* -1 with an error set */

/* rows.c */
int put_row(Table *table, PyObject *tensor, const View *view, int column, int index, int root,
            int counts_zeros); /* 0 with an error set */
PyObject *table_read(Table *table, PyObject *const *args, Py_ssize_t n);
PyObject *table_take(Table *table, PyObject *number);
PyObject *table_measure(Table *table, PyObject *tensors);
extern const char read_doc[], take_doc[], measure_doc[];

/* hooks.c */
extern PyType_Spec hook_spec;
extern PyObject *hook_type;
PyObject *table_watch(Table *table, PyObject *const *args, Py_ssize_t n);
extern const char watch_doc[];

/* module.c */
void free_object(PyObject *object);

#endif
