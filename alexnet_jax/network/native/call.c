#include "call.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

XLA_FFI_Error* run_operation(const XLA_FFI_CallFrame* frame, const char* name, Operation* operation) {
  // Before any call XLA asks for the version. The type of an extension has another name since jaxlib 0.12.
  if (frame->extension_start && frame->extension_start->type == XLA_FFI_Extension_Metadata) {
    XLA_FFI_Metadata* metadata = ((const XLA_FFI_Metadata_Extension*)frame->extension_start)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    return NULL;
  }
  return operation(&(Op){frame, name});
}

XLA_FFI_Error* make_error(const Op* op, XLA_FFI_Error_Code code, const char* format, ...) {
  char message[512];
  const int length = snprintf(message, sizeof message, "%s: ", op->name);
  va_list values;
  va_start(values, format);
  vsnprintf(message + length, sizeof message - length, format, values);
  va_end(values);
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, message, code};
  return op->frame->api->XLA_FFI_Error_Create(&args);
}

int discard_error(const XLA_FFI_CallFrame* frame, XLA_FFI_Error* error) {
  if (!error) return 0;
  XLA_FFI_Error_Destroy_Args args = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
  frame->api->XLA_FFI_Error_Destroy(&args);
  return 1;
}

// ---- buffers -------------------------------------------------------------------------------------------------------

int64_t element_count(const XLA_FFI_Buffer* buffer) {
  int64_t count = 1;
  for (int i = 0; i < RANK; i++)
    if (buffer->dims[i] == 0) return 0;
  for (int i = 0; i < RANK; i++) count *= buffer->dims[i];
  return count;
}

typedef struct {
  char text[96];
} ShapeText;

static ShapeText print_shape(const int64_t* dims) {
  ShapeText shape;
  snprintf(shape.text, sizeof shape.text, "[%lld, %lld, %lld, %lld]", (long long)dims[0], (long long)dims[1],
           (long long)dims[2], (long long)dims[3]);
  return shape;
}

static XLA_FFI_Error* check_buffer(const Op* op, const char* kind, long i, const XLA_FFI_Buffer* buffer) {
  if (buffer->dtype != XLA_FFI_DataType_F32)
    return INVALID(op, "%s %ld has data type %d, expected %d (float32)", kind, i, (int)buffer->dtype,
                   (int)XLA_FFI_DataType_F32);
  if (buffer->rank != RANK)
    return INVALID(op, "%s %ld has rank %lld, expected %d", kind, i, (long long)buffer->rank, RANK);
  for (int axis = 0; axis < RANK; axis++)
    if (buffer->dims[axis] < 0 || buffer->dims[axis] > INT32_MAX)
      return INVALID(op, "%s %ld is %s, expected dimensions from 0 to %d", kind, i, print_shape(buffer->dims).text,
                     INT32_MAX);
  return NULL;
}

XLA_FFI_Error* check_buffers(const Op* op, long arguments) {
  const XLA_FFI_Args* args = &op->frame->args;
  const XLA_FFI_Rets* rets = &op->frame->rets;
  if (args->size != arguments) return INVALID(op, "%lld arguments, expected %ld", (long long)args->size, arguments);
  if (rets->size != 1) return INVALID(op, "%lld results, expected 1", (long long)rets->size);
  for (long i = 0; i < arguments; i++) {
    if (args->types[i] != XLA_FFI_ArgType_BUFFER) return INVALID(op, "argument %ld is no buffer", i);
    TRY(check_buffer(op, "argument", i, argument(op, i)));
  }
  if (rets->types[0] != XLA_FFI_RetType_BUFFER) return INVALID(op, "result 0 is no buffer");
  return check_buffer(op, "result", 0, result(op));
}

static XLA_FFI_Error* check_shape(const Op* op, const char* kind, long i, const XLA_FFI_Buffer* buffer,
                                  const Shape* expected) {
  if (!memcmp(buffer->dims, expected->dims, sizeof expected->dims)) return NULL;
  return INVALID(op, "%s %ld is %s, expected %s", kind, i, print_shape(buffer->dims).text,
                 print_shape(expected->dims).text);
}

XLA_FFI_Error* check_argument_shape(const Op* op, long i, Shape expected) {
  return check_shape(op, "argument", i, argument(op, i), &expected);
}

XLA_FFI_Error* check_result_shape(const Op* op, Shape expected) {
  return check_shape(op, "result", 0, result(op), &expected);
}

// ---- attributes ----------------------------------------------------------------------------------------------------

static XLA_FFI_Error* find_scalar(const Op* op, const char* name, XLA_FFI_DataType dtype, const char* type,
                                  const void** value) {
  const XLA_FFI_Attrs* attrs = &op->frame->attrs;
  for (long i = 0; i < attrs->size; i++) {
    if (attrs->names[i]->len != strlen(name) || memcmp(attrs->names[i]->ptr, name, attrs->names[i]->len)) continue;
    if (attrs->types[i] != XLA_FFI_AttrType_SCALAR)
      return INVALID(op, "attribute %s is no scalar, expected %s", name, type);
    const XLA_FFI_Scalar* scalar = attrs->attrs[i];
    if (scalar->dtype != dtype)
      return INVALID(op, "attribute %s has data type %d, expected %d (%s)", name, (int)scalar->dtype, (int)dtype, type);
    *value = scalar->value;
    return NULL;
  }
  return INVALID(op, "attribute %s is missing, expected %s", name, type);
}

XLA_FFI_Error* attr_i64(const Op* op, const char* name, int64_t min, int64_t max, long* value) {
  const void* stored = NULL;
  int64_t number;
  TRY(find_scalar(op, name, XLA_FFI_DataType_S64, "int64", &stored));
  memcpy(&number, stored, sizeof number);
  if (number < min || number > max)
    return INVALID(op, "attribute %s is %lld, expected %lld to %lld", name, (long long)number, (long long)min,
                   (long long)max);
  *value = number;
  return NULL;
}

XLA_FFI_Error* attr_f32(const Op* op, const char* name, float* value) {
  const void* stored = NULL;
  TRY(find_scalar(op, name, XLA_FFI_DataType_F32, "float32", &stored));
  memcpy(value, stored, sizeof *value);
  return NULL;
}
