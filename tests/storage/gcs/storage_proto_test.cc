#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include "google/storage/v2/storage.pb.h"

// The subset of google.storage.v2 is the service's, not ours: every name, number and type is pinned
// here to its public definition.

namespace peerchunk::test {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

const FileDescriptor& File() { return *google::storage::v2::Object::descriptor()->file(); }

// "name=number type", with "optional ", "repeated " or the oneof's name before it.
std::string Describe(const FieldDescriptor& field) {
  std::string text;
  if (field.is_repeated() && !field.is_map()) text += "repeated ";
  if (field.has_optional_keyword()) text += "optional ";
  if (field.real_containing_oneof() != nullptr) {
    text += field.real_containing_oneof()->name() + ": ";
  }
  text += field.name() + "=" + std::to_string(field.number()) + " ";
  if (field.is_map()) {
    return text + "map " + field.message_type()->map_key()->type_name() + " " +
           field.message_type()->map_value()->type_name();
  }
  if (field.type() != FieldDescriptor::TYPE_MESSAGE) return text + field.type_name();
  return text + field.message_type()->name();
}

std::vector<std::string> Fields(const std::string& message) {
  const Descriptor* descriptor = File().FindMessageTypeByName(message.substr(0, message.find('.')));
  if (descriptor == nullptr) return {"no such message"};
  for (size_t dot = message.find('.'); dot != std::string::npos; dot = message.find('.', dot + 1)) {
    const size_t end = message.find('.', dot + 1);
    descriptor = descriptor->FindNestedTypeByName(message.substr(dot + 1, end - dot - 1));
    if (descriptor == nullptr) return {"no such message"};
  }
  std::vector<std::string> fields;
  for (int i = 0; i < descriptor->field_count(); ++i)
    fields.push_back(Describe(*descriptor->field(i)));
  return fields;
}

using Expected = std::vector<std::string>;

TEST(StorageProtoTest, PackageServiceAndMethods) {
  EXPECT_EQ(File().package(), "google.storage.v2");
  const ServiceDescriptor* service = File().FindServiceByName("Storage");
  ASSERT_NE(service, nullptr);
  std::vector<std::string> methods;
  for (int i = 0; i < service->method_count(); ++i) {
    const MethodDescriptor& method = *service->method(i);
    methods.push_back(method.name() + (method.client_streaming() ? " stream " : " ") +
                      method.input_type()->name() + " ->" +
                      (method.server_streaming() ? " stream " : " ") +
                      method.output_type()->name());
  }
  EXPECT_EQ(
      methods,
      (Expected{"DeleteObject DeleteObjectRequest -> Empty", "GetObject GetObjectRequest -> Object",
                "ReadObject ReadObjectRequest -> stream ReadObjectResponse",
                "WriteObject stream WriteObjectRequest -> WriteObjectResponse",
                "ListObjects ListObjectsRequest -> ListObjectsResponse",
                "ComposeObject ComposeObjectRequest -> Object",
                "StartResumableWrite StartResumableWriteRequest -> "
                "StartResumableWriteResponse",
                "QueryWriteStatus QueryWriteStatusRequest -> QueryWriteStatusResponse",
                "CancelResumableWrite CancelResumableWriteRequest -> "
                "CancelResumableWriteResponse"}));
}

TEST(StorageProtoTest, Requests) {
  EXPECT_EQ(Fields("GetObjectRequest"),
            (Expected{"bucket=1 string", "object=2 string", "generation=3 int64",
                      "optional if_generation_match=4 int64", "optional read_mask=10 FieldMask"}));
  EXPECT_EQ(Fields("ReadObjectRequest"),
            (Expected{"bucket=1 string", "object=2 string", "generation=3 int64",
                      "read_offset=4 int64", "read_limit=5 int64",
                      "optional if_generation_match=6 int64", "optional read_mask=12 FieldMask"}));
  EXPECT_EQ(Fields("StartResumableWriteRequest"), (Expected{"write_object_spec=1 WriteObjectSpec",
                                                            "object_checksums=5 ObjectChecksums"}));
  EXPECT_EQ(Fields("QueryWriteStatusRequest"), (Expected{"upload_id=1 string"}));
  EXPECT_EQ(Fields("CancelResumableWriteRequest"), (Expected{"upload_id=1 string"}));
  EXPECT_EQ(Fields("WriteObjectRequest"),
            (Expected{"first_message: upload_id=1 string",
                      "first_message: write_object_spec=2 WriteObjectSpec", "write_offset=3 int64",
                      "data: checksummed_data=4 ChecksummedData",
                      "object_checksums=6 ObjectChecksums", "finish_write=7 bool"}));
  EXPECT_EQ(
      Fields("ComposeObjectRequest"),
      (Expected{"destination=1 Object", "repeated source_objects=2 SourceObject",
                "optional if_generation_match=4 int64", "object_checksums=10 ObjectChecksums"}));
  EXPECT_EQ(Fields("ComposeObjectRequest.SourceObject"),
            (Expected{"name=1 string", "generation=2 int64",
                      "object_preconditions=3 ObjectPreconditions"}));
  EXPECT_EQ(Fields("ComposeObjectRequest.SourceObject.ObjectPreconditions"),
            (Expected{"optional if_generation_match=1 int64"}));
  EXPECT_EQ(Fields("DeleteObjectRequest"),
            (Expected{"bucket=1 string", "object=2 string", "generation=4 int64",
                      "optional if_generation_match=5 int64"}));
  EXPECT_EQ(Fields("ListObjectsRequest"),
            (Expected{"parent=1 string", "page_size=2 int32", "page_token=3 string",
                      "prefix=6 string", "optional read_mask=8 FieldMask"}));
}

TEST(StorageProtoTest, Responses) {
  EXPECT_EQ(Fields("ReadObjectResponse"),
            (Expected{"checksummed_data=1 ChecksummedData", "object_checksums=2 ObjectChecksums",
                      "content_range=3 ContentRange", "metadata=4 Object"}));
  EXPECT_EQ(Fields("StartResumableWriteResponse"), (Expected{"upload_id=1 string"}));
  for (const char* message : {"QueryWriteStatusResponse", "WriteObjectResponse"}) {
    EXPECT_EQ(Fields(message),
              (Expected{"write_status: persisted_size=1 int64", "write_status: resource=2 Object",
                        "persisted_data_checksums=3 ObjectChecksums"}));
  }
  EXPECT_EQ(Fields("CancelResumableWriteResponse"), Expected{});
  EXPECT_EQ(Fields("ListObjectsResponse"),
            (Expected{"repeated objects=1 Object", "repeated prefixes=2 string",
                      "next_page_token=3 string"}));
}

TEST(StorageProtoTest, CommonMessages) {
  EXPECT_EQ(Fields("ChecksummedData"), (Expected{"content=1 bytes", "optional crc32c=2 fixed32"}));
  EXPECT_EQ(Fields("ObjectChecksums"), (Expected{"optional crc32c=1 fixed32", "md5_hash=2 bytes"}));
  EXPECT_EQ(Fields("ContentRange"),
            (Expected{"start=1 int64", "end=2 int64", "complete_length=3 int64"}));
  EXPECT_EQ(Fields("WriteObjectSpec"),
            (Expected{"resource=1 Object", "optional if_generation_match=3 int64",
                      "predefined_acl=7 string", "optional object_size=8 int64"}));
  EXPECT_EQ(
      Fields("Object"),
      (Expected{"name=1 string", "bucket=2 string", "generation=3 int64", "metageneration=4 int64",
                "storage_class=5 string", "size=6 int64", "content_encoding=7 string",
                "content_type=13 string", "create_time=14 Timestamp", "component_count=15 int32",
                "checksums=16 ObjectChecksums", "metadata=22 map string string", "etag=27 string",
                "finalize_time=36 Timestamp"}));
}

}  // namespace
}  // namespace peerchunk::test
