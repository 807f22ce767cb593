#include "generate_graph.h"

#include <fmt/format.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "graph_writer.h"

namespace bnfold::fuzz {

namespace {

struct Value {
  Name name;
  Sizes sizes;

  int64_t rank() const { return static_cast<int64_t>(sizes.size()); }
  int64_t channels() const { return sizes.at(1); }
};

// What a convolution is called with.
struct Convolution {
  int64_t channels;
  int64_t kernel;
  int64_t stride;
  int64_t padding;
  int64_t dilation;
  int64_t groups;
  bool transposed;

  int64_t output_size(int64_t size) const {
    const int64_t reach = dilation * (kernel - 1);
    return transposed ? (size - 1) * stride - 2 * padding + reach + 1 : (size + 2 * padding - reach - 1) / stride + 1;
  }
};

// Whether this LibTorch has it; a graph with what it hasn't can be parsed, not run.
bool is_operator(const char* kind) {
  return !torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(kind)).empty();
}

class Generator {
 public:
  explicit Generator(Choices& choices) : choices_(choices), writer_(choices) {}

  IrProgram run() {
    const size_t inputs = choices_.one_in(3) ? 2 : 1;
    for (size_t i = 0; i < inputs; ++i) add_input();
    for (int statement = 0; statement < 14 && choices_.below(16) != 0; ++statement) values_.push_back(any_statement(pick()));
    IrProgram program = writer_.finish(output());
    // Behind a branch no rank is known, and a convolution is taken for one with a batch.
    program.knows_ranks &= !unbatched_;
    return program;
  }

 private:
  using Statement = Value (Generator::*)(const Value&);

  void add_input() {
    static const std::vector<Sizes> shapes = {{2, 4, 5, 5},    {2, 4, 5, 5}, {3, 4},      {2, 4, 6},
                                              {2, 4, 3, 4, 3}, {4, 5, 5},    {2, 6, 6, 4}};
    const Sizes sizes = choices_.one_of(shapes);
    values_.push_back({writer_.input({Content::values, sizes}, choices_.one_in(4)), sizes});
  }

  Value pick() {
    const size_t back = choices_.one_in(3) ? choices_.below(values_.size()) : 0;
    return values_[values_.size() - 1 - back];
  }

  std::optional<Value> pick_like(const Value& value) {
    std::vector<Value> alike;
    for (auto other = values_.rbegin(); other != values_.rend(); ++other) {
      if (other->sizes == value.sizes) alike.push_back(*other);
    }
    if (alike.empty()) return std::nullopt;
    return choices_.one_of(alike);
  }

  Value any_statement(const Value& value) {
    static const std::vector<std::pair<size_t, Statement>> statements = {{28, &Generator::layer_and_norm},
                                                                         {8, &Generator::norm},
                                                                         {8, &Generator::layer},
                                                                         {8, &Generator::activation},
                                                                         {6, &Generator::sum},
                                                                         {4, &Generator::beside},
                                                                         {2, &Generator::parallel},
                                                                         {2, &Generator::tensor_bounds},
                                                                         {4, &Generator::product},
                                                                         {4, &Generator::constant_affine},
                                                                         {4, &Generator::pool},
                                                                         {4, &Generator::shape},
                                                                         {4, &Generator::join},
                                                                         {3, &Generator::cut},
                                                                         {4, &Generator::in_place},
                                                                         {4, &Generator::branch},
                                                                         {3, &Generator::loop},
                                                                         {2, &Generator::container},
                                                                         {2, &Generator::alias},
                                                                         {4, &Generator::written_beside},
                                                                         {2, &Generator::written_out},
                                                                         {2, &Generator::metadata},
                                                                         {2, &Generator::other_norm},
                                                                         {1, &Generator::counter},
                                                                         {2, &Generator::matrix_product}};
    size_t total = 0;
    for (const auto& statement : statements) total += statement.first;
    size_t drawn = choices_.below(total);
    for (const auto& [weight, statement] : statements) {
      if (drawn < weight) return (this->*statement)(value);
      drawn -= weight;
    }
    return value;
  }

  // Some statements one behind the other that come to the sizes of `value`; what has other sizes stays unused.
  Value chain(const Value& value) {
    Value last = value;
    for (int i = 0; i < 3 && choices_.below(3) != 0; ++i) {
      const Value next = any_statement(last);
      if (next.sizes == value.sizes) last = next;
    }
    return last;
  }

  // Layers

  Value layer(const Value& value) {
    if (value.rank() < 3 || choices_.one_in(8)) return linear(value);
    return convolution(value);
  }

  Value layer_and_norm(const Value& value) {
    Value between = layer(value);
    if (choices_.one_in(4)) between = any_statement(between);
    return norm(between);
  }

  Convolution draw_convolution(const Value& value) {
    const int64_t channels = value.channels();
    Convolution conv{4, 1, 1, 0, 1, 1, choices_.one_in(5)};
    conv.channels = choices_.one_of<int64_t>({channels, 4, 6, 2});
    conv.kernel = choices_.one_of<int64_t>({1, 3, 3, 2});
    conv.padding = choices_.one_of<int64_t>({conv.kernel / 2, 0, 0, 1});
    conv.stride = choices_.one_of<int64_t>({1, 1, 1, 2});
    conv.dilation = choices_.one_in(6) ? 2 : 1;
    const int64_t groups = choices_.one_of<int64_t>({1, 1, 2, channels});
    if (channels % groups == 0 && conv.channels % groups == 0) conv.groups = groups;
    for (auto size = value.sizes.begin() + 2; size != value.sizes.end(); ++size) {
      if (conv.output_size(*size) < 1) return {conv.channels, 1, 1, 0, 1, conv.groups, conv.transposed};
    }
    return conv;
  }

  Value convolution(const Value& value) {
    const bool unbatched = value.rank() == 3 && choices_.one_in(4);  // [C, H, W]
    if (unbatched) return unbatched_convolution(value);
    const Convolution conv = draw_convolution(value);
    const int64_t spatial = value.rank() - 2;
    Sizes weight = {conv.transposed ? value.channels() : conv.channels,
                    (conv.transposed ? conv.channels : value.channels()) / conv.groups};
    weight.insert(weight.end(), static_cast<size_t>(spatial), conv.kernel);
    Value output = value;
    output.sizes[1] = conv.channels;
    for (size_t i = 2; i < output.sizes.size(); ++i) output.sizes[i] = conv.output_size(output.sizes[i]);
    output.name = call(conv, value.name, weight, spatial);
    return output;
  }

  // TorchScript takes it for granted that what leaves conv2d has 4 dimensions, so nothing asks for it from here on.
  Value unbatched_convolution(const Value& value) {
    unbatched_ = true;
    const int64_t channels = value.sizes[0];
    const Convolution conv{channels, 1, 1, 0, 1, 1, false};
    return {call(conv, value.name, {channels, channels, 1, 1}, 2), value.sizes};
  }

  Name call(const Convolution& conv, const Name& input, const Sizes& weight_sizes, int64_t spatial) {
    const std::string path = writer_.layer("conv");
    const Name weight = writer_.tensor(path + ".weight", {Content::values, weight_sizes});
    const Name bias = optional_bias(path, conv.channels);
    const auto repeated = [&](int64_t number) { return writer_.integers(Sizes(static_cast<size_t>(spatial), number)); };
    const Name stride = repeated(conv.stride);
    const Name dilation = repeated(conv.dilation);
    const Name groups = writer_.integer(conv.groups);
    const size_t spelling = choices_.below(6);
    const bool same = 2 * conv.padding == conv.dilation * (conv.kernel - 1) && conv.stride == 1;
    if (spelling == 5 && !conv.transposed && (same || conv.padding == 0)) {
      const Name mode = writer_.text(same && choices_.one_in(2) ? "same" : conv.padding == 0 ? "valid" : "same");
      const std::string kind = choices_.one_in(3) ? "aten::_convolution_mode" : fmt::format("aten::conv{}d", spatial);
      return writer_.node(kind, {input, weight, bias, stride, mode, dilation, groups});
    }
    const Name padding = repeated(conv.padding);
    if (spelling <= 2) {
      const Names before = {input, weight, bias, stride, padding};
      if (!conv.transposed) return writer_.node(fmt::format("aten::conv{}d", spatial), joined(before, {dilation, groups}));
      return writer_.node(fmt::format("aten::conv_transpose{}d", spatial), joined(before, {repeated(0), groups, dilation}));
    }
    Names inputs = {input, weight, bias, stride, padding, dilation, writer_.flag(conv.transposed), repeated(0), groups};
    if (spelling == 3) return writer_.node("aten::convolution", inputs);
    for (int option = 0; option < (spelling == 4 ? 4 : 3); ++option) inputs.push_back(writer_.flag(choices_.one_in(2)));
    return writer_.node("aten::_convolution", inputs);
  }

  static Names joined(Names names, const Names& more) {
    names.insert(names.end(), more.begin(), more.end());
    return names;
  }

  Name optional_bias(const std::string& path, int64_t channels) {
    if (choices_.one_in(3)) return writer_.none();
    return writer_.tensor(path + ".bias", {Content::values, {channels}});
  }

  Value linear(const Value& value) {
    const std::string path = writer_.layer("linear");
    const int64_t features = value.sizes.back();
    Value output = value;
    output.sizes.back() = choices_.one_of<int64_t>({features, 4, 6});
    const size_t spelling = choices_.below(5);
    if (spelling < 2 || (value.rank() != 2 && spelling < 4)) {
      const Name weight = writer_.tensor(path + ".weight", {Content::values, {output.sizes.back(), features}});
      output.name = writer_.node("aten::linear", {value.name, weight, optional_bias(path, output.sizes.back())});
      return output;
    }
    Name matrix;
    if (choices_.one_in(2)) {
      matrix = writer_.node("aten::t", {writer_.tensor(path + ".weight", {Content::values, {output.sizes.back(), features}})});
    } else {
      matrix = writer_.tensor(path + ".weight", {Content::values, {features, output.sizes.back()}});
    }
    if (spelling == 2) {
      const Name bias = writer_.tensor(path + ".bias", {Content::values, {output.sizes.back()}});
      const int64_t alpha = choices_.one_in(5) ? 2 : 1;
      output.name = writer_.node("aten::addmm", {bias, value.name, matrix, writer_.integer(1), writer_.integer(alpha)});
    } else {
      output.name = writer_.node(spelling == 3 ? "aten::mm" : "aten::matmul", {value.name, matrix});
    }
    return output;
  }

  // Products with a weight for each sample, and with the weight on the left.
  Value matrix_product(const Value& value) {
    if (value.rank() != 3) return linear(value);
    const std::string path = writer_.layer("bmm");
    if (choices_.one_in(2)) {
      Sizes sizes = {value.sizes[0], value.sizes[2], value.sizes[2]};
      const Name weight = writer_.tensor(path + ".weight", {Content::values, sizes});
      if (choices_.one_in(2)) return {writer_.node("aten::bmm", {value.name, weight}), value.sizes};
      return {writer_.node("aten::baddbmm", {value.name, value.name, weight, writer_.integer(1), writer_.integer(1)}),
              value.sizes};
    }
    const Name weight = writer_.tensor(path + ".weight", {Content::values, {value.sizes[1], value.sizes[1]}});
    return {writer_.node("aten::matmul", {weight, value.name}), value.sizes};
  }

  // Norms

  Name norm_tensor(const std::string& path, const char* name, Content content, int64_t channels, bool optional) {
    const bool is_buffer = content == Content::variances || std::string(name) == "running_mean";
    if (optional && choices_.one_in(6)) return writer_.none();
    return writer_.tensor(path + "." + name, {content, {channels}}, is_buffer);
  }

  // Weight, bias, mean and variance. Without statistics a norm in eval mode does not run.
  Names norm_tensors(const std::string& path, int64_t channels, bool statistics) {
    Names tensors = {norm_tensor(path, "weight", Content::scales, channels, true),
                     norm_tensor(path, "bias", Content::shifts, channels, true)};
    if (!statistics) return joined(tensors, {writer_.none(), writer_.none()});
    return joined(tensors, {norm_tensor(path, "running_mean", Content::shifts, channels, false),
                            norm_tensor(path, "running_var", Content::variances, channels, false)});
  }

  Value norm(const Value& value) {
    if (value.rank() < 2) return activation(value);
    const std::string path = writer_.layer("norm");
    const bool trains = choices_.one_in(16);
    const Names tensors = norm_tensors(path, value.channels(), !trains || choices_.one_in(2));
    const Names inputs = {writer_.flag(trains), writer_.number(choices_.one_in(4) ? 0.5 : 0.1),
                          writer_.number(choices_.one_in(4) ? 0.1 : 1e-5), writer_.flag(choices_.one_in(2))};
    return {writer_.node("aten::batch_norm", joined(joined({value.name}, tensors), inputs)), value.sizes};
  }

  // Norms under other names, and those that have no fixed affine.
  Value other_norm(const Value& value) {
    if (value.rank() < 3) return norm(value);
    const std::string path = writer_.layer("norm");
    const int64_t channels = value.channels();
    const auto all = [&](const Names& arguments) {
      const Names tensors = norm_tensors(path, channels, true);
      return joined(joined({value.name}, tensors), arguments);
    };
    const Name momentum = writer_.number(0.1);
    const Name epsilon = writer_.number(1e-5);
    switch (choices_.below(5)) {
      case 0:
        return {
            writer_.node("aten::instance_norm", all({writer_.flag(choices_.one_in(4)), momentum, epsilon, writer_.flag(true)})),
            value.sizes};
      case 1:
        return {writer_.nodes("aten::native_batch_norm", all({writer_.flag(false), momentum, epsilon}),
                              {"Tensor", "Tensor", "Tensor"})[0],
                value.sizes};
      case 2:
        return {writer_.nodes("aten::_batch_norm_impl_index", all({writer_.flag(false), momentum, epsilon, writer_.flag(false)}),
                              {"Tensor", "Tensor", "Tensor", "Tensor", "int"})[0],
                value.sizes};
      case 3:
        if (!is_operator("aten::_native_batch_norm_legit_no_training")) return norm(value);
        return {writer_.nodes("aten::_native_batch_norm_legit_no_training", all({momentum, epsilon}),
                              {"Tensor", "Tensor", "Tensor"})[0],
                value.sizes};
      default:
        return {writer_.node("aten::group_norm", {value.name, writer_.integer(1), norm_tensors(path, channels, false)[0],
                                                  writer_.none(), epsilon, writer_.flag(true)}),
                value.sizes};
    }
  }

  // x * scale and x * scale + shift with static tensors: layer scales and frozen norms.
  Value constant_affine(const Value& value) {
    if (value.rank() < 2) return activation(value);
    Sizes sizes(static_cast<size_t>(value.rank()), 1);
    const size_t along = choices_.one_in(5) ? sizes.size() - 1 : 1;
    sizes[along] = value.sizes[along];
    if (choices_.one_in(2)) sizes.erase(sizes.begin());
    const std::string path = writer_.layer("affine");
    Name scale = writer_.tensor(path + ".scale", {Content::scales, sizes});
    const bool scale_is_computed = choices_.one_in(3);
    if (scale_is_computed) {
      const Name variance = writer_.tensor(path + ".variance", {Content::variances, sizes}, true);
      const Name sum = writer_.node("aten::add", {variance, writer_.number(1e-5), writer_.integer(1)});
      scale = writer_.node("aten::mul", {scale, writer_.node("aten::rsqrt", {sum})});
    }
    // Static no more: it is written in place, before the product or behind it.
    const size_t written = scale_is_computed ? choices_.below(6) : 0;
    if (written == 4) writer_.node("aten::add_", {scale, writer_.number(1), writer_.integer(1)});
    const bool left = choices_.one_in(3);
    const Name product = writer_.node("aten::mul", left ? Names{scale, value.name} : Names{value.name, scale});
    if (written == 5) writer_.node("aten::mul_", {scale, writer_.number(0.5)});
    if (choices_.one_in(3)) return {product, value.sizes};
    const Name shift = writer_.tensor(path + ".shift", {Content::shifts, sizes});
    const Name alpha = writer_.integer(choices_.one_in(6) ? 2 : 1);
    return {writer_.node("aten::add", choices_.one_in(4) ? Names{shift, product, alpha} : Names{product, shift, alpha}),
            value.sizes};
  }

  // Values of the same sizes

  Value activation(const Value& value) {
    static const std::vector<std::string> plain = {"relu",   "relu6", "sigmoid", "tanh",   "silu", "hardswish",  "neg", "abs",
                                                   "detach", "clone", "alias",   "square", "selu", "contiguous", "gelu"};
    switch (choices_.below(8)) {
      case 0:
        return {writer_.node("aten::relu", {value.name}), value.sizes};
      case 1:
        return {writer_.node("aten::hardtanh", {value.name, writer_.number(-0.5), writer_.number(1.5)}), value.sizes};
      case 2:
        return {writer_.node("aten::clamp", {value.name, choices_.one_in(3) ? writer_.none() : writer_.number(-0.25),
                                             choices_.one_in(3) ? writer_.number(0.75) : writer_.none()}),
                value.sizes};
      case 3:
        return {writer_.node("aten::leaky_relu", {value.name, writer_.number(0.2)}), value.sizes};
      case 4:
        // Where the flag has to be computed first, constant propagation drops what is written into the output: PyTorch takes it for a copy.
        return {writer_.node("aten::dropout", {value.name, writer_.number(0.5), writer_.constant("bool", "0")}), value.sizes};
      case 5:
        return {writer_.node(choices_.one_in(2) ? "aten::clamp_min" : "aten::clamp_max", {value.name, writer_.integer(0)}),
                value.sizes};
      default:
        break;
    }
    const std::string kind = choices_.one_of(plain);
    Names inputs = {value.name};
    if (kind == "clone" || kind == "contiguous") inputs.push_back(kind == "clone" ? writer_.none() : writer_.integer(0));
    if (kind == "gelu") inputs.push_back(writer_.text("none"));
    return {writer_.node("aten::" + kind, inputs), value.sizes};
  }

  // Clamped between tensors, of the rank of the value or of a larger one, which the result takes over.
  Value tensor_bounds(const Value& value) {
    if (value.rank() < 2) return activation(value);
    Value output = value;
    Sizes sizes(static_cast<size_t>(value.rank()), 1);
    sizes[1] = value.channels();
    if (value.rank() < 4 && choices_.one_in(2)) {
      sizes.insert(sizes.begin() + 2, 2, 1);
      output.sizes.insert(output.sizes.begin(), {1, value.channels()});
    }
    const Name low = writer_.tensor(writer_.layer("bounds") + ".low", {Content::shifts, sizes});
    switch (choices_.below(4)) {
      case 0:
        output.name = writer_.node("aten::clamp", {value.name, low, writer_.none()});
        break;
      case 1:
        output.name = writer_.node("aten::clamp",
                                   {value.name, low, writer_.node("aten::add", {low, writer_.number(1), writer_.integer(1)})});
        break;
      default:
        output.name = writer_.node(choices_.one_in(2) ? "aten::clamp_min" : "aten::clamp_max", {value.name, low});
    }
    return output;
  }

  Value sum(const Value& value) {
    const std::string kind = choices_.one_of<std::string>({"aten::add", "aten::add", "aten::sub", "aten::rsub"});
    const Name alpha = choices_.one_in(5) ? writer_.number(-0.5) : writer_.integer(1);
    if (choices_.one_in(5)) return {writer_.node(kind, {value.name, writer_.number(0.75), alpha}), value.sizes};
    if (choices_.one_in(5)) {
      Sizes sizes = value.sizes;
      sizes[0] = 1;
      return {writer_.node(kind, {value.name, writer_.tensor(writer_.layer("addend"), {Content::values, sizes}), alpha}),
              value.sizes};
    }
    const Value other = pick_like(value).value_or(value);
    return {writer_.node(kind, {value.name, other.name, alpha}), value.sizes};
  }

  // A norm and a convolution of one value in a sum of three, the third of which may be smaller than it, or in another order.
  Value beside(const Value& value) {
    if (value.rank() != 4) return sum(value);
    const Convolution conv{value.channels(), 3, 1, 1, 1, 1, false};
    Name first = norm(value).name;
    Name last = call(conv, value.name, {value.channels(), value.channels(), 3, 3}, 2);
    if (choices_.one_in(4)) std::swap(first, last);
    const Name two = writer_.node("aten::add", {first, third(value), writer_.integer(1)});
    const Name alpha = writer_.integer(choices_.one_in(5) ? 2 : 1);
    if (choices_.one_in(2)) return {writer_.node("aten::add_", {two, last, alpha}), value.sizes};
    return {writer_.node("aten::add", choices_.one_in(3) ? Names{last, two, alpha} : Names{two, last, alpha}), value.sizes};
  }

  // Two convolutions of one value, added, the second of which may have another kernel, and read the value after a write.
  Value parallel(const Value& value) {
    if (value.rank() != 4) return sum(value);
    const auto same_size = [&] {
      const int64_t kernel = choices_.one_of<int64_t>({1, 3, 3, 5});
      const int64_t dilation = choices_.one_in(4) ? 2 : 1;
      const Convolution conv{value.channels(), kernel, 1, dilation * (kernel / 2), dilation, 1, false};
      return call(conv, value.name, {value.channels(), value.channels(), kernel, kernel}, 2);
    };
    Name first = same_size();
    if (choices_.one_in(2)) first = norm({first, value.sizes}).name;
    if (choices_.one_in(6)) writer_.node("aten::mul_", {value.name, writer_.number(0.5)});
    const Name kind = choices_.one_of<std::string>({"aten::add", "aten::sub", "aten::add_"});
    return {writer_.node(kind, {first, same_size(), writer_.integer(choices_.one_in(5) ? -2 : 1)}), value.sizes};
  }

  Name third(const Value& value) {
    const size_t kind = choices_.below(3);
    Name addend = value.name;
    if (kind == 0) {
      addend = writer_.node("aten::mean", {value.name, writer_.integers({2, 3}), writer_.flag(true), writer_.none()});
    } else if (kind == 1 && value.sizes[2] == value.sizes[3]) {
      addend = writer_.node("aten::transpose", {value.name, writer_.integer(2), writer_.integer(3)});
    }
    return writer_.node("aten::sigmoid", {addend});
  }

  Value product(const Value& value) {
    if (choices_.one_in(4)) return {writer_.node("aten::div", {value.name, writer_.number(4)}), value.sizes};
    if (choices_.one_in(4)) return {writer_.node("aten::mul", {value.name, writer_.number(-1.5)}), value.sizes};
    if (choices_.one_in(3) && value.rank() == 4) {
      const Name means = writer_.node("aten::mean", {value.name, writer_.integers({2, 3}), writer_.flag(true), writer_.none()});
      return {writer_.node("aten::mul", {value.name, writer_.node("aten::sigmoid", {means})}), value.sizes};
    }
    const Value other = pick_like(value).value_or(value);
    const Name gate = writer_.node("aten::sigmoid", {other.name});
    return {writer_.node("aten::mul", choices_.one_in(2) ? Names{gate, value.name} : Names{value.name, gate}), value.sizes};
  }

  // The letters of einsum for a value of this rank.
  static std::string letters(int64_t rank) { return std::string("nchwd").substr(0, static_cast<size_t>(rank)); }

  // The value itself, from an operator whose schema does not say so.
  Name unsaid_alias(const Value& value) {
    const auto sizes = [&] { return writer_.node("aten::size", {value.name}, "int[]"); };
    switch (choices_.below(11)) {
      case 10: {
        const std::string same = letters(value.rank());
        const Name list = writer_.node("prim::ListConstruct", {value.name}, "Tensor[]");
        return writer_.node("aten::einsum", {writer_.text(same + "->" + same), list, writer_.none()});
      }
      case 9:
        return writer_.node("aten::conj_physical", {value.name});
      case 8:
        return writer_.node("aten::_unsafe_view", {value.name, sizes()});
      case 7:
        return is_operator("aten::lift") ? writer_.node("aten::lift", {value.name}) : value.name;
      case 6:
        return writer_.node("aten::type_as", {value.name, value.name});
      case 5:
        return writer_.node("aten::expand_as", {value.name, value.name});
      case 4:
        return writer_.node("aten::atleast_2d", {value.name});
      case 3:
        return writer_.node("aten::contiguous", {value.name, writer_.integer(0)});
      case 0:
        return writer_.node("aten::atleast_1d", {value.name});
      case 1:
        return writer_.node("aten::sum_to_size", {value.name, sizes()});
      default: {
        const Name list = writer_.node("aten::unsafe_chunk", {value.name, writer_.integer(1), writer_.integer(0)}, "Tensor[]");
        return writer_.node("aten::__getitem__", {list, writer_.integer(0)});
      }
    }
  }

  // A second name for the memory of the value, which others go on reading.
  Value alias(const Value& value) { return {value.rank() < 3 ? value.name : unsaid_alias(value), value.sizes}; }

  // A norm of what has two names, one of which is written before a layer reads the norm.
  Value written_beside(const Value& value) {
    const Value own{choices_.one_in(4) ? value.name : writer_.node("aten::mul", {value.name, writer_.number(2)}), value.sizes};
    const Value other = choices_.one_in(3) ? container(own) : alias(own);
    const bool swapped = choices_.one_in(3);
    const Value normed = norm(swapped ? own : other);
    writer_.node("aten::mul_", {swapped ? other.name : own.name, writer_.number(0.5)});
    values_.push_back(own);
    return layer(normed);
  }

  // What an operator writes into another tensor, read by the name of either.
  Value written_out(const Value& value) {
    const Name out = choices_.one_in(3) ? value.name : writer_.node("aten::clone", {value.name, writer_.none()});
    const Value other = pick_like(value).value_or(value);
    Name result;
    switch (choices_.below(5)) {
      case 0:
        result = writer_.node("aten::mul", {value.name, other.name, out});
        break;
      case 1:
        result = writer_.node("aten::add", {value.name, other.name, writer_.integer(1), out});
        break;
      case 2:
        result = writer_.node("aten::tanh", {value.name, out});
        break;
      case 3:
        result = writer_.node("aten::clamp", {value.name, writer_.number(-1), writer_.number(1), out});
        break;
      default:
        result = writer_.node("aten::neg", {value.name, out});
    }
    if (out != value.name) values_.push_back({out, value.sizes});
    return {choices_.one_in(2) ? out : result, value.sizes};
  }

  Value in_place(const Value& value) {
    const Name target = choices_.one_in(4) ? unsaid_alias(value) : value.name;
    Name written = target;
    switch (choices_.below(6)) {
      case 0:
        written = writer_.node("aten::relu_", {target});
        break;
      case 1:
        written = writer_.node("aten::mul_", {target, writer_.number(0.5)});
        break;
      case 2:
        written = writer_.node("aten::clamp_", {target, writer_.number(-1), writer_.number(1)});
        break;
      case 3:
        written = writer_.node("aten::copy_", {target, pick_like(value).value_or(value).name, writer_.flag(false)});
        break;
      case 4:
        written = writer_.node("aten::silu_", {target});
        break;
      default:
        written = writer_.node("aten::add_", {target, pick_like(value).value_or(value).name, writer_.integer(1)});
    }
    return {choices_.one_in(2) ? value.name : written, value.sizes};
  }

  // Other sizes

  Value pool(const Value& value) {
    if (value.rank() != 4) return mean(value);
    const auto both = [this](int64_t number) { return writer_.integers({number, number}); };
    const bool fits = value.sizes[2] >= 2 && value.sizes[3] >= 2;
    Value output = value;
    const auto pooled = [&](int64_t stride, int64_t padding) {
      for (size_t i : {2, 3}) output.sizes[i] = (output.sizes[i] + 2 * padding - 2) / stride + 1;
    };
    switch (fits ? choices_.below(6) : 5) {
      case 0:
        pooled(2, 0);
        output.name = writer_.node("aten::max_pool2d", {value.name, both(2), both(2), both(0), both(1), writer_.flag(false)});
        return output;
      case 1:
        pooled(1, 1);
        output.name = writer_.node("aten::max_pool2d", {value.name, both(2), both(1), both(1), both(1), writer_.flag(false)});
        return output;
      case 2:
        pooled(2, 0);
        output.name = writer_.node("aten::avg_pool2d", {value.name, both(2), writer_.node("prim::ListConstruct", {}, "int[]"),
                                                        both(0), writer_.flag(false), writer_.flag(true), writer_.none()});
        return output;
      case 3:
        pooled(1, 1);
        output.name = writer_.node("aten::avg_pool2d",
                                   {value.name, both(2), both(1), both(1), writer_.flag(false), writer_.flag(choices_.one_in(2)),
                                    choices_.one_in(4) ? writer_.integer(3) : writer_.none()});
        return output;
      case 4:
        output.sizes[2] = output.sizes[3] = 2;
        output.name = writer_.node("aten::adaptive_avg_pool2d", {value.name, both(2)});
        return output;
      default:
        return mean(value);
    }
  }

  Value mean(const Value& value) {
    if (value.rank() < 3) return activation(value);
    Value output = value;
    const bool keep = choices_.one_in(2);
    const int64_t dimension = choices_.one_in(4) ? 1 : value.rank() - 1;
    if (keep) {
      output.sizes[static_cast<size_t>(dimension)] = 1;
    } else {
      output.sizes.erase(output.sizes.begin() + dimension);
    }
    const Name dimensions = writer_.integers({choices_.one_in(2) ? dimension - value.rank() : dimension});
    output.name = writer_.node(choices_.one_in(3) ? "aten::sum" : "aten::mean",
                               {value.name, dimensions, writer_.flag(keep), writer_.none()});
    return output;
  }

  Value shape(const Value& value) {
    Value output = value;
    const int64_t rank = value.rank();
    const int64_t last = value.sizes.back();
    const auto permuted = [&](const Sizes& order) {
      for (size_t i = 0; i < order.size(); ++i) output.sizes[i] = value.sizes[static_cast<size_t>(order[i])];
    };
    switch (choices_.below(9)) {
      case 0:
        if (rank < 3) break;
        output.sizes = {value.sizes[0], 1};
        for (size_t i = 1; i < value.sizes.size(); ++i) output.sizes[1] *= value.sizes[i];
        output.name = writer_.node("aten::flatten", {value.name, writer_.integer(1), writer_.integer(-1)});
        return output;
      case 1:
        if (rank != 4) break;
        permuted({0, 2, 3, 1});
        output.name = writer_.node("aten::permute", {value.name, writer_.integers({0, 2, 3, 1})});
        return output;
      case 2:
        if (rank < 3) break;
        std::swap(output.sizes[1], output.sizes.back());
        output.name = writer_.node("aten::transpose", {value.name, writer_.integer(1), writer_.integer(-1)});
        return output;
      case 3:
        output.sizes.push_back(1);
        output.name = writer_.node("aten::unsqueeze", {value.name, writer_.integer(-1)});
        return rank < 5 ? output : activation(value);
      case 4:
        if (rank != 4) break;
        output.sizes = {value.sizes[0], value.sizes[1], value.sizes[2] * value.sizes[3]};
        output.name = writer_.node(
            choices_.one_in(2) ? "aten::reshape" : "aten::view",
            {value.name, writer_.integers({choices_.one_in(2) ? -1 : value.sizes[0], value.sizes[1], output.sizes[2]})});
        return output;
      case 5:
        if (last != 1 || rank < 3) break;
        output.sizes.pop_back();
        output.name = writer_.node("aten::squeeze", {value.name, writer_.integer(-1)});
        return output;
      case 6:
        if (rank != 4) break;
        output.sizes[2] *= 2;
        output.sizes[3] *= 2;
        output.name = writer_.node("aten::upsample_nearest2d", {value.name, writer_.integers({output.sizes[2], output.sizes[3]}),
                                                                writer_.none(), writer_.none()});
        return output.sizes[2] > 20 ? value : output;
      case 7:
        output.sizes.back() += 2;
        output.name = writer_.node("aten::constant_pad_nd", {value.name, writer_.integers({1, 1}),
                                                             choices_.one_in(2) ? writer_.number(0.5) : writer_.integer(0)});
        return output;
      default:
        if (rank != 4 || value.channels() % 2 != 0) break;
        output.name = writer_.node("aten::channel_shuffle", {value.name, writer_.integer(2)});
        return output;
    }
    return activation(value);
  }

  Value join(const Value& value) {
    if (value.rank() < 2) return activation(value);
    const Value other = pick_like(value).value_or(value);
    const bool stacked = choices_.one_in(6) && value.rank() < 5;
    const int64_t along = choices_.one_in(4) ? value.rank() - 1 : 1;
    Value output = value;
    if (stacked) {
      output.sizes.insert(output.sizes.begin() + 1, 2);
    } else {
      output.sizes[static_cast<size_t>(along)] *= 2;
    }
    Name list = writer_.node("prim::ListConstruct", {value.name, other.name}, "Tensor[]");
    if (choices_.one_in(5)) {
      list = writer_.node("prim::ListConstruct", {value.name}, "Tensor[]");
      writer_.node("aten::append", {list, other.name}, "Tensor[]");
    }
    output.name = writer_.node(stacked ? "aten::stack" : "aten::cat", {list, writer_.integer(stacked ? 1 : along)});
    return output.sizes[1] > 24 ? activation(value) : output;
  }

  Value cut(const Value& value) {
    if (value.rank() < 2 || value.channels() % 2 != 0) return activation(value);
    Value output = value;
    output.sizes[1] /= 2;
    const Name half = writer_.integer(output.sizes[1]);
    switch (choices_.below(4)) {
      case 0:
        output.name = writer_.node("aten::slice", {value.name, writer_.integer(1), writer_.integer(0), half, writer_.integer(1)});
        return output;
      case 1: {
        const Name list = writer_.node("aten::chunk", {value.name, writer_.integer(2), writer_.integer(1)}, "Tensor[]");
        const Names parts = writer_.nodes("prim::ListUnpack", {list}, {"Tensor", "Tensor"});
        output.name = parts[choices_.below(2)];
        values_.push_back({parts[0], output.sizes});
        return output;
      }
      case 2: {
        const Name list = writer_.node("aten::split", {value.name, half, writer_.integer(1)}, "Tensor[]");
        output.name = writer_.node("aten::__getitem__", {list, writer_.integer(-1)});
        return output;
      }
      default:
        output.sizes = value.sizes;
        output.sizes.erase(output.sizes.begin() + 1);
        output.name = writer_.node("aten::select", {value.name, writer_.integer(1), writer_.integer(0)});
        return output;
    }
  }

  // Blocks and containers

  Name condition(const Value& value) {
    switch (choices_.below(unbatched_ ? 3 : 4)) {
      case 0:
        return writer_.flag(choices_.one_in(2));
      case 1: {
        const Name total = writer_.node("aten::sum", {value.name, writer_.none()});
        // What leaves a norm that trains sums up to 0, and rounding would decide.
        return writer_.node("aten::Bool", {writer_.node("aten::gt", {total, writer_.number(0.37)})}, "bool");
      }
      case 2:
        return writer_.node("aten::gt", {writer_.node("aten::size", {value.name, writer_.integer(0)}, "int"), writer_.integer(2)},
                            "bool");
      default:
        return writer_.node("aten::eq", {writer_.node("aten::dim", {value.name}, "int"), writer_.integer(value.rank())}, "bool");
    }
  }

  Value branch(const Value& value) {
    if (++depth_ > 3) return --depth_, activation(value);
    const Name taken = condition(value);
    const Names outputs = {writer_.node("prim::If", {taken})};
    const size_t visible = values_.size();
    for (int block = 0; block < 2; ++block) {
      writer_.open_block();
      writer_.close_block({chain(value).name});
      values_.resize(visible);
    }
    --depth_;
    return {outputs[0], value.sizes};
  }

  Value loop(const Value& value) {
    if (++depth_ > 3) return --depth_, activation(value);
    const Name once_more = writer_.flag(true);
    const Name rounds = choices_.one_in(3) ? writer_.node("aten::size", {value.name, writer_.integer(0)}, "int")
                                           : writer_.integer(static_cast<int64_t>(choices_.below(4)));
    const Name output = writer_.node("prim::Loop", {rounds, once_more, value.name});
    const size_t visible = values_.size();
    const Value carried{writer_.new_name(), value.sizes};
    writer_.open_block({{writer_.new_name(), "int"}, {carried.name, "Tensor"}});
    values_.push_back(carried);
    const Value last = chain(carried);
    writer_.close_block({choices_.one_in(6) ? condition(last) : once_more, last.name});
    values_.resize(visible);
    --depth_;
    return {output, value.sizes};
  }

  Value container(const Value& value) {
    const Value other = pick_like(value).value_or(value);
    const size_t taken = choices_.below(2);
    if (choices_.one_in(3)) {
      const Names keys = {writer_.text("a"), writer_.text("b")};
      const Name dict = writer_.node("prim::DictConstruct", {keys[0], value.name, keys[1], other.name}, "Dict(str, Tensor)");
      if (choices_.one_in(2)) writer_.effect("aten::_set_item", {dict, keys[0], other.name});
      return {writer_.node("aten::__getitem__", {dict, keys[taken]}), value.sizes};
    }
    if (choices_.one_in(2)) {
      const Name tuple = writer_.node("prim::TupleConstruct", {value.name, other.name}, "(Tensor, Tensor)");
      return {writer_.nodes("prim::TupleUnpack", {tuple}, {"Tensor", "Tensor"})[taken], value.sizes};
    }
    const Name list = writer_.node("prim::ListConstruct", {value.name, other.name}, "Tensor[]");
    if (choices_.one_in(2)) return {writer_.nodes("prim::ListUnpack", {list}, {"Tensor", "Tensor"})[taken], value.sizes};
    if (choices_.one_in(2)) writer_.effect("aten::reverse", {list});
    return {writer_.node("aten::__getitem__", {list, writer_.integer(static_cast<int64_t>(taken))}), value.sizes};
  }

  // Reads of sizes, and checks of them that raise.
  Value metadata(const Value& value) {
    if (unbatched_) return activation(value);
    const Name dimensions = writer_.node("aten::dim", {value.name}, "int");
    const Name differs = writer_.node("aten::ne", {dimensions, writer_.integer(value.rank())}, "bool");
    writer_.effect("prim::If", {differs});
    writer_.open_block();
    writer_.effect("prim::RaiseException", {writer_.text("unexpected rank"), writer_.text("builtins.ValueError")});
    writer_.close_block({});
    writer_.open_block();
    writer_.close_block({});
    return activation(value);
  }

  Value counter(const Value& value) {
    writer_.count_up();
    return value;
  }

  Name output() {
    const Value last = values_.back();
    if (choices_.below(3) != 1) return last.name;
    Names names = {last.name};
    for (int i = 0; i < 2 && choices_.one_in(2); ++i) names.push_back(pick().name);
    return writer_.node("prim::TupleConstruct", names,
                        names.size() == 1   ? "(Tensor)"
                        : names.size() == 2 ? "(Tensor, Tensor)"
                                            : "(Tensor, Tensor, Tensor)");
  }

  Choices& choices_;
  GraphWriter writer_;
  std::vector<Value> values_;  // those that the block being written may read
  int depth_ = 0;
  bool unbatched_ = false;  // whether a convolution of [C, H, W] was written
};

}  // namespace

IrProgram generate_graph(Choices& choices) {
  return Generator(choices).run();
}

}  // namespace bnfold::fuzz
