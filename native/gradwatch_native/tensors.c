/* Tensors, met through their Python methods. */
#include "kernels.h"

#define ALONE 65536 /* from so many elements on, other threads may run meanwhile */
#define MAX_DIMS 16

static PyObject *name_is_cpu, *name_dtype, *name_data_ptr, *name_numel, *name_stride, *name_shape,
    *name_is_contiguous, *name_is_nested, *name_version;

int intern_names(void) {
    struct { PyObject **place; const char *name; } names[] = {
        {&name_is_cpu, "is_cpu"}, {&name_dtype, "dtype"},         {&name_data_ptr, "data_ptr"},
        {&name_numel, "numel"},   {&name_stride, "stride"},       {&name_shape, "shape"},
        {&name_version, "_version"}, {&name_is_nested, "is_nested"},
        {&name_is_contiguous, "is_contiguous"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i)
        if (!(*names[i].place = PyUnicode_InternFromString(names[i].name))) return -1;
    return 0;
}

static int get_flag(PyObject *object, PyObject *name) {
    PyObject *value = PyObject_GetAttr(object, name);
    if (!value) return -1;
    int flag = PyObject_IsTrue(value);
    Py_DECREF(value);
    return flag;
}

static PyObject *call_method(PyObject *object, PyObject *name) {
    return PyObject_CallMethodObjArgs(object, name, NULL);
}

int64_t get_number(PyObject *value) { /* takes the reference; -1 with an error set */
    if (!value) return -1;
    int64_t number = (int64_t)PyLong_AsLongLong(value);
    Py_DECREF(value);
    return number;
}

static Kind find_kind(Table *table, PyObject *tensor) {
    PyObject *dtype = PyObject_GetAttr(tensor, name_dtype);
    if (!dtype) return UNREADABLE;
    Kind kind = FLOAT32;
    while (kind < UNREADABLE && PyTuple_GetItem(table->dtypes, kind) != dtype) ++kind;
    Py_DECREF(dtype);
    return kind;
}

static int is_plain(Table *table, PyObject *tensor) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(table->types); ++i)
        if ((PyObject *)Py_TYPE(tensor) == PyTuple_GetItem(table->types, i)) return 1;
    return 0;
}

/* Whether the elements fill a stretch of memory, in whatever order. */
static int is_dense(PyObject *tensor) {
    int64_t sizes[MAX_DIMS], strides[MAX_DIMS], expected = 1;
    PyObject *shape = PyObject_GetAttr(tensor, name_shape);
    PyObject *stride = shape ? call_method(tensor, name_stride) : NULL;
    int n_dims = 0, answer = 0;
    Py_ssize_t count = stride ? PyTuple_Size(stride) : -1;
    if (count < 0 || count > MAX_DIMS) goto done;
    for (Py_ssize_t i = 0; i < count; ++i) {
        int64_t size = (int64_t)PyLong_AsLongLong(PyTuple_GetItem(shape, i));
        if (size == 1) continue;
        sizes[n_dims] = size;
        strides[n_dims++] = (int64_t)PyLong_AsLongLong(PyTuple_GetItem(stride, i));
    }
    if (PyErr_Occurred()) goto done;
    for (int found = 0; found < n_dims; ++found) {
        int at = 0;
        while (at < n_dims && strides[at] != expected) ++at;
        if (at == n_dims) goto done;
        expected *= sizes[at];
        strides[at] = -1;
    }
    answer = 1;
done:
    Py_XDECREF(shape);
    Py_XDECREF(stride);
    return answer;
}

/* Answers 1 where the tensor can be read here; else 0, with no error set. */
int find_view(Table *table, PyObject *tensor, View *view) {
    if (!is_plain(table, tensor)) return 0;
    view->kind = find_kind(table, tensor);
    if (view->kind == UNREADABLE || get_flag(tensor, name_is_cpu) != 1) goto refused;
    if (get_flag(tensor, name_is_nested) != 0) goto refused;
    view->size = get_number(call_method(tensor, name_numel));
    if (view->size <= 0) goto refused;
    PyObject *contiguous = call_method(tensor, name_is_contiguous);
    int is_contiguous = contiguous ? PyObject_IsTrue(contiguous) : -1;
    Py_XDECREF(contiguous);
    if (is_contiguous < 0 || !(is_contiguous || is_dense(tensor))) goto refused;
    PyObject *pointer = call_method(tensor, name_data_ptr);
    if (!pointer) goto refused;
    view->data = (const char *)PyLong_AsVoidPtr(pointer);
    Py_DECREF(pointer);
    if (view->data && !PyErr_Occurred()) return 1;
refused:
    PyErr_Clear();
    return 0;
}

double sum_squares_of(const View *view) {
    double total;
    if (view->size < ALONE) return sum_squares(view->data, view->size, view->kind);
    Py_BEGIN_ALLOW_THREADS
    total = sum_squares(view->data, view->size, view->kind);
    Py_END_ALLOW_THREADS
    return total;
}

/* Large tensors that are handed on are read once; they are held weakly. */
double measure_once(Table *table, PyObject *tensor, const View *view) {
    if (view->size <= table->sample_size) return sum_squares_of(view);
    PyObject *value = PyObject_GetAttr(tensor, name_version);
    int64_t version = get_number(value);
    for (int i = 0; i < MAX_RECENT; ++i) {
        Recent *recent = &table->recent[i];
        if (!recent->tensor || recent->data != view->data || recent->size != view->size) continue;
        if (recent->version == version && PyWeakref_GetObject(recent->tensor) != Py_None)
            return recent->sum_squares;
    }
    double total = sum_squares_of(view);
    Recent *recent = &table->recent[table->next_recent];
    table->next_recent = (table->next_recent + 1) % MAX_RECENT;
    Py_XDECREF(recent->tensor);
    recent->tensor = version < 0 ? NULL : PyWeakref_NewRef(tensor, NULL);
    recent->data = view->data, recent->size = view->size;
    recent->version = version, recent->sum_squares = total;
    PyErr_Clear();
    return total;
}

static int64_t find_stride(Table *table, int64_t size) {
    PyObject *key = PyLong_FromLongLong(size), *stride = NULL;
    if (!key) return -1;
    stride = PyDict_GetItem(table->strides, key);
    Py_XINCREF(stride);
    if (!stride) {
        stride = PyObject_CallFunctionObjArgs(table->choose_stride, key, NULL);
        if (stride && PyDict_SetItem(table->strides, key, stride) < 0) Py_CLEAR(stride);
    }
    Py_DECREF(key);
    return get_number(stride);
}

/* Elements of the sample that are not zero; -1 with an error set. */
int64_t count_sample(Table *table, const View *view, int64_t *sample) {
    *sample = view->size;
    if (view->size <= table->sample_size) return count_nonzero(view->data, view->size, view->kind);
    int64_t stride = find_stride(table, view->size), count = 0, length = table->run_length;
    if (stride <= 0) return -1;
    int64_t runs = (view->size - length) / stride + 1;
    *sample = runs * length;
    for (int64_t run = 0; run < runs; ++run)
        count += count_nonzero(view->data + run * stride * ELEMENT_SIZES[view->kind], length, view->kind);
    return count;
}
