#include "completion.h"

#include <fmt/format.h>

#include <algorithm>

namespace {

struct Option {
  std::string name;  // "--json"
  std::string description;
  std::string value;    // what stands for its value in the help, nothing for a flag
  std::string choices;  // "bash zsh fish", nothing where any value may be given
};

// "bash zsh fish" of "SHELL:{bash,zsh,fish}"
std::string choices_of(const std::string& value) {
  const size_t open = value.find('{');
  if (open == std::string::npos) return "";
  std::string choices = value.substr(open + 1, value.find('}') - open - 1);
  std::replace(choices.begin(), choices.end(), ',', ' ');
  return choices;
}

std::vector<Option> options_of(const CLI::App& app) {
  std::vector<Option> options;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) continue;
    const bool flag = option->get_items_expected_max() == 0;
    const std::string value = flag ? "" : option->get_type_name();
    options.push_back({"--" + option->get_lnames().at(0), option->get_description(), value, choices_of(value)});
  }
  return options;
}

bool is_file(const Option& option) {
  return option.value.rfind("FILE", 0) == 0;
}

// Inside of single quotes.
std::string quoted(const std::string& text, const std::string& special) {
  std::string result;
  for (const char letter : text) {
    if (letter == '\'') {
      result += "'\\''";
    } else {
      if (special.find(letter) != std::string::npos) result += '\\';
      result += letter;
    }
  }
  return result;
}

std::string for_bash(const std::vector<Option>& options) {
  std::string names;
  std::string with_choices;
  std::string with_free_value;
  for (const Option& option : options) {
    names += (names.empty() ? "" : " ") + option.name;
    if (!option.choices.empty()) {
      with_choices +=
          fmt::format("    {}) mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\"); return ;;\n", option.name, option.choices);
    } else if (!option.value.empty() && !is_file(option)) {
      with_free_value += (with_free_value.empty() ? "" : "|") + option.name;
    }
  }
  return fmt::format(
      "_bnfold() {{\n"
      "  local word=${{COMP_WORDS[COMP_CWORD]}}\n"
      "  case ${{COMP_WORDS[COMP_CWORD-1]}} in\n"
      "{}"
      "    {}) COMPREPLY=(); return ;;\n"
      "  esac\n"
      "  if [[ $word == -* ]]; then\n"
      "    mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\")\n"
      "  else\n"
      "    mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
      "  fi\n"
      "}}\n"
      "complete -o filenames -F _bnfold bnfold\n",
      with_choices, with_free_value, names);
}

std::string for_zsh(const std::vector<Option>& options) {
  std::string text = "#compdef bnfold\n_bnfold() {\n  _arguments";
  for (const Option& option : options) {
    const std::string repeats = option.name == "--input" ? "*" : "";
    text += fmt::format(" \\\n    '{}{}[{}]", repeats, option.name, quoted(option.description, "[]:"));
    if (is_file(option)) {
      text += ":file:_files";
    } else if (!option.choices.empty()) {
      text += fmt::format(":value:({})", option.choices);
    } else if (!option.value.empty()) {
      text += fmt::format(":{}: ", option.value.substr(0, option.value.find_first_of(" [:")));
    }
    text += '\'';
  }
  return text + " \\\n    '1:IN:_files' \\\n    '2:OUT:_files'\n}\ncompdef _bnfold bnfold\n";
}

std::string for_fish(const std::vector<Option>& options) {
  std::string text;
  for (const Option& option : options) {
    text += fmt::format("complete -c bnfold -l {} -d '{}'", option.name.substr(2), quoted(option.description, "\\"));
    if (is_file(option)) {
      text += " -r -F";
    } else if (!option.choices.empty()) {
      text += fmt::format(" -x -a '{}'", option.choices);
    } else if (!option.value.empty()) {
      text += " -x";
    }
    text += '\n';
  }
  return text;
}

}  // namespace

const std::vector<std::string>& shells() {
  static const std::vector<std::string> names = {"bash", "zsh", "fish"};
  return names;
}

std::string completion(const CLI::App& app, const std::string& shell) {
  const std::vector<Option> options = options_of(app);
  if (shell == "bash") return for_bash(options);
  return shell == "zsh" ? for_zsh(options) : for_fish(options);
}
