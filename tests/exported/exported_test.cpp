// Exported programs without Python: what torch.export writes is written here by hand.
#include "bnfold/exported.h"

#include <caffe2/serialize/inline_container.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "exported/json.h"
#include "exported/no_grad.h"
#include "exported/read_graph.h"
#include "exported/targets.h"
#include "support/close.h"

namespace bnfold::test {

using exported::Json;

namespace {

Json tensor(const std::string& name) {
  return {{"as_tensor", {{"name", name}}}};
}

Json meta(const std::vector<int64_t>& sizes) {
  const auto numbers = [](const std::vector<int64_t>& all) {
    Json list = Json::array();
    for (const int64_t one : all) list.push_back({{"as_int", one}});
    return list;
  };
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * sizes[i];
  return {{"dtype", 8},
          {"sizes", numbers(sizes)},
          {"requires_grad", false},
          {"device", {{"type", "cpu"}, {"index", nullptr}}},
          {"strides", numbers(strides)},
          {"storage_offset", {{"as_int", 0}}},
          {"layout", 7}};
}

Json node(const std::string& target, const std::vector<std::pair<std::string, Json>>& arguments, const std::string& name) {
  Json inputs = Json::array();
  for (const auto& [argument, value] : arguments) inputs.push_back({{"name", argument}, {"arg", value}, {"kind", 1}});
  return {{"target", target},
          {"inputs", inputs},
          {"outputs", Json::array({tensor(name)})},
          {"metadata", {{"stack_trace", "File \"model.py\", line 7, in forward"}, {"nn_module_stack", "a,layer,torch.nn.Layer"}}},
          {"is_hop_single_tensor_return", nullptr},
          {"name", name}};
}

Json norm(const std::string& input, const std::string& name, bool training = false) {
  return node("torch.ops.aten.batch_norm.default",
              {{"input", tensor(input)},
               {"weight", tensor("p_gamma")},
               {"bias", tensor("p_beta")},
               {"running_mean", tensor("b_mean")},
               {"running_var", tensor("b_var")},
               {"training", {{"as_bool", training}}},
               {"momentum", {{"as_float", 0.1}}},
               {"eps", {{"as_float", 1e-5}}},
               {"cudnn_enabled", {{"as_bool", true}}}},
              name);
}

// The nodes read x [2, 3, 5, 5], a weight [4, 3, 1, 1] and the tensors of a norm of 4 channels.
class Program {
 public:
  Program(const Json& nodes, const std::string& output) {
    for (const auto& [name, path, sizes] :
         std::vector<std::tuple<std::string, std::string, std::vector<int64_t>>>{{"p_weight", "conv.weight", {4, 3, 1, 1}},
                                                                                 {"p_gamma", "norm.weight", {4}},
                                                                                 {"p_beta", "norm.bias", {4}},
                                                                                 {"b_mean", "norm.running_mean", {4}},
                                                                                 {"b_var", "norm.running_var", {4}}}) {
      const Json arg{{"name", name}};
      specs_.push_back(name[0] == 'p' ? Json{{"parameter", {{"arg", arg}, {"parameter_name", path}}}}
                                      : Json{{"buffer", {{"arg", arg}, {"buffer_name", path}, {"persistent", true}}}});
      inputs_.push_back(tensor(name));
      values_[name] = meta(sizes);
      program.tensors[path] = at::rand(sizes, at::TensorOptions(at::kDouble)) + 0.5;
    }
    specs_.push_back({{"user_input", {{"arg", tensor("x")}}}});
    inputs_.push_back(tensor("x"));
    values_["x"] = meta({2, 3, 5, 5});
    for (const Json& one : nodes) {
      for (const Json& result : one.at("outputs"))
        values_[result.at("as_tensor").at("name").get<std::string>()] = meta({2, 4, 5, 5});
    }
    json = {{"graph_module",
             {{"graph",
               {{"inputs", inputs_},
                {"outputs", Json::array({tensor(output)})},
                {"nodes", nodes},
                {"tensor_values", values_},
                {"sym_int_values", Json::object()}}},
              {"signature",
               {{"input_specs", specs_}, {"output_specs", Json::array({Json{{"user_output", {{"arg", tensor(output)}}}}})}}}}},
            {"schema_version", {{"major", 8}, {"minor", 20}}},
            {"verifiers", {"TRAINING"}}};
    program.json = json.dump();
  }

  ExportedFoldResult folded() const { return fold(program); }

  Json json;
  ExportedProgram program;

 private:
  Json specs_ = Json::array();
  Json inputs_ = Json::array();
  Json values_ = Json::object();
};

Json conv(const std::string& input = "x", const std::string& name = "conv2d") {
  return node("torch.ops.aten.conv2d.default", {{"input", tensor(input)}, {"weight", tensor("p_weight")}}, name);
}

Json nodes_of(const ExportedFoldResult& result) {
  return Json::parse(result.program.json).at("graph_module").at("graph").at("nodes");
}

TEST(Exported, ANormIsFoldedIntoTheSameJson) {
  const Program original(Json::array({conv(), norm("conv2d", "batch_norm")}), "batch_norm");
  const ExportedFoldResult result = original.folded();
  ASSERT_EQ(result.report.folded.size(), 1);
  EXPECT_EQ(result.report.folded[0].name, "norm");
  Json expected = conv();
  expected["inputs"].push_back({{"name", "bias"}, {"arg", tensor("p_conv_bias")}, {"kind", 1}});
  EXPECT_EQ(nodes_of(result), Json::array({expected}));
  const auto& tensors = original.program.tensors;
  const at::Tensor scale = tensors.at("norm.weight") / (tensors.at("norm.running_var") + 1e-5).sqrt();
  const at::Tensor weight = tensors.at("conv.weight") * scale.view({4, 1, 1, 1});
  const at::Tensor bias = tensors.at("norm.bias") - tensors.at("norm.running_mean") * scale;
  EXPECT_LT(relative_error(weight, result.program.tensors.at("conv.weight")), 1e-5);
  EXPECT_LT(relative_error(bias, result.program.tensors.at("conv.bias")), 1e-5);
  EXPECT_EQ(result.program.tensors.size(), 2);
  const Json module = Json::parse(result.program.json).at("graph_module");
  EXPECT_EQ(module.at("graph").at("outputs"), Json::array({tensor("conv2d")}));
  EXPECT_EQ(module.at("signature").at("output_specs")[0].at("user_output").at("arg"), tensor("conv2d"));
  EXPECT_EQ(module.at("graph").at("tensor_values").at("p_conv_bias"), meta({4}));
}

TEST(Exported, AnUnknownOperatorMayWriteWhatItReads) {
  const Json unknown = node("torch.ops.mine.look.default", {{"x", tensor("conv2d")}}, "look");
  const Program written(Json::array({conv(), unknown, norm("conv2d", "batch_norm")}), "batch_norm");
  const ExportedFoldResult kept = written.folded();
  ASSERT_EQ(kept.report.kept.size(), 1);
  EXPECT_EQ(kept.report.kept[0].source, "model.py:7");
  EXPECT_EQ(nodes_of(kept), Json::parse(written.program.json).at("graph_module").at("graph").at("nodes"));
  const Program before(Json::array({node("torch.ops.mine.look.default", {{"x", tensor("x")}}, "look"), conv("look"),
                                    norm("conv2d", "batch_norm")}),
                       "batch_norm");
  EXPECT_EQ(before.folded().report.folded.size(), 1);
}

TEST(Exported, ATensorThatIsMissingIsNotKnown) {
  Program program(Json::array({conv(), norm("conv2d", "batch_norm")}), "batch_norm");
  program.program.tensors.erase("norm.running_mean");
  const ExportedFoldResult result = program.folded();
  ASSERT_EQ(result.report.kept.size(), 1);
  EXPECT_EQ(result.report.kept[0].reason, Reason::norm_parameters_not_static);
}

TEST(Exported, ANormThatTrainsIsKept) {
  const Program program(Json::array({conv(), norm("conv2d", "batch_norm", /*training=*/true)}), "batch_norm");
  ASSERT_EQ(program.folded().report.kept.size(), 1);
  EXPECT_EQ(program.folded().report.kept[0].reason, Reason::norm_in_training_mode);
}

TEST(Exported, ARegionWithoutGradientsGetsNamesOfItsOwn) {
  // Inside, conv2d is another value than outside.
  Json region{{"inputs", {tensor("y"), tensor("p_weight")}},
              {"outputs", Json::array({tensor("conv2d")})},
              {"nodes", Json::array({conv("y", "conv2d")})},
              {"tensor_values", {{"y", meta({2, 3, 5, 5})}, {"p_weight", meta({4, 3, 1, 1})}, {"conv2d", meta({2, 4, 5, 5})}}}};
  Json wrapped = node("torch.ops.higher_order.wrap_with_set_grad_enabled", {}, "getitem");
  for (const Json& argument :
       {Json{{"as_bool", false}}, Json{{"as_graph", {{"name", "submod"}, {"graph", region}}}}, tensor("x"), tensor("p_weight")}) {
    wrapped["inputs"].push_back({{"name", ""}, {"arg", argument}, {"kind", 1}});
  }
  wrapped["name"] = "region";
  const Json sum = node("torch.ops.aten.add.Tensor", {{"self", tensor("conv2d")}, {"other", tensor("getitem")}}, "add");
  Program program(Json::array({conv(), wrapped, sum}), "add");
  exported::inline_grad_regions(program.json);
  const Json& nodes = program.json.at("graph_module").at("graph").at("nodes");
  ASSERT_EQ(nodes.size(), 3);
  EXPECT_EQ(nodes[1], [] {
    Json inner = conv("x", "conv2d_inlined_1");
    return inner;
  }());
  EXPECT_EQ(nodes[2].at("inputs")[1].at("arg"), tensor("conv2d_inlined_1"));
}

TEST(Exported, AnotherSchemaIsRefused) {
  Program program(Json::array({conv()}), "conv2d");
  program.json["schema_version"]["major"] = 9;
  program.program.json = program.json.dump();
  EXPECT_THROW(program.folded(), Error);
  program.program.json = "{}";
  EXPECT_THROW(program.folded(), Error);
  program.program.json = "[";
  EXPECT_THROW(program.folded(), Error);
}

TEST(Exported, OptionsOfModulesAreRefused) {
  const Program program(Json::array({conv()}), "conv2d");
  Options options;
  options.input_ranks = {4};
  EXPECT_THROW(fold(program.program, options), Error);
}

TEST(Exported, NumbersOfTheSchemaAreThoseOfLibtorch) {
  for (const at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16, at::kDouble}) {
    EXPECT_EQ(exported::dtype_of(exported::number_of(dtype)), dtype);
  }
  EXPECT_EQ(exported::dtype_of(0), std::nullopt);
  EXPECT_EQ(exported::schema_of("torch.ops.aten.no_such_operator.default"), nullptr);
  EXPECT_EQ(exported::target_of(*exported::schema_of("torch.ops.aten.add.Tensor")), "torch.ops.aten.add.Tensor");
  EXPECT_EQ(std::string(exported::opaque_kind("torch.ops.aten.relu.default").toQualString()), "opaque::aten.relu");
}

// A file with weights as torch.export.save writes it.
void write_archive(const Program& program, const std::string& path) {
  caffe2::serialize::PyTorchStreamWriter writer(path);
  const auto write = [&writer](const std::string& name, const std::string& text) {
    writer.writeRecord(name, text.data(), text.size());
  };
  Json config = Json::object();
  for (const auto& [name, one] : program.program.tensors) {
    const std::string content = "weight_" + std::to_string(config.size());
    writer.writeRecord("data/weights/" + content, one.data_ptr(), one.numel() * one.element_size());
    config[name] = {{"path_name", content}, {"is_param", true}, {"use_pickle", false}, {"tensor_meta", meta(one.sizes().vec())}};
  }
  write("data/weights/model_weights_config.json", Json{{"config", config}}.dump());
  write("data/constants/model_constants_config.json", R"({"config": {}})");
  write("models/model.json", program.program.json);
  write("data/sample_inputs/model.pt", "inputs");
  write("archive_format", "pt2");
  write("archive_version", "0");
  writer.writeEndOfFile();
}

TEST(Exported, AFileIsFoldedIntoAFile) {
  const std::string path = testing::TempDir() + "model.pt2";
  const std::string out = testing::TempDir() + "folded.pt2";
  const Program program(Json::array({conv(), norm("conv2d", "batch_norm")}), "batch_norm");
  write_archive(program, path);
  EXPECT_TRUE(is_exported_file(path));
  const ExportedFoldResult result = fold(load_exported(path));
  save(result.program, out);
  const ExportedProgram folded = load_exported(out);
  EXPECT_EQ(folded.json, result.program.json);
  EXPECT_TRUE(folded.tensors.at("conv.bias").equal(result.program.tensors.at("conv.bias")));
  EXPECT_EQ(fold(folded).report.kept.size() + fold(folded).report.folded.size(), 0);
  EXPECT_NE(to_graphviz(load_exported(path), result).find("conv2d"), std::string::npos);
  EXPECT_THROW(save(program.folded().program, out), Error);
}

TEST(Exported, ADamagedFileIsRefused) {
  const std::string path = testing::TempDir() + "damaged.pt2";
  write_archive(Program(Json::array({conv(), norm("conv2d", "batch_norm")}), "batch_norm"), path);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  EXPECT_THROW(load_exported(path), LoadError);
}

}  // namespace

}  // namespace bnfold::test
